package platform_test

import (
	"encoding/json"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// TestDeleteRegistered deletes in the registry what registered modules are made of: that is refused, and what is not theirs goes. Each
// deletion is in the audit log.
func TestDeleteRegistered(t *testing.T) {
	p := platformtest.Start(t)
	one := p.Publish(platformtest.Module{Name: "one", Version: "1.0"})
	index := p.PushIndex("modules/two", platformtest.Module{Name: "two", Version: "1.0"}, platformtest.Module{Name: "two", Version: "1.0", Architecture: "arm64"})
	if _, err := p.Operator.RegisterModule(t.Context(), index); err != nil {
		t.Fatal(err)
	}
	// A newer version doesn't free the one before.
	p.Publish(platformtest.Module{Name: "one", Version: "1.1"})
	loose := p.Push(platformtest.Module{Name: "one", Version: "2.0", Files: map[string]string{"usr/x": "x"}})
	token := "Bearer " + p.Config.Token.Reveal()
	get := func(repository, digest string, v any) {
		t.Helper()
		if err := json.Unmarshal(p.Do(nil, "GET", "/v2/"+repository+"/manifests/"+digest, nil, "Authorization", token).Body, v); err != nil {
			t.Fatal(err)
		}
	}
	var kept, gone ocispec.Manifest
	var list ocispec.Index
	get("modules/one", one.Digest, &kept)
	get("modules/one", loose.Digest, &gone)
	get("modules/two", index.Digest, &list)
	for _, tc := range []struct {
		path   string
		status int
	}{
		{"one/manifests/" + one.Digest, 409},
		{"one/blobs/" + string(kept.Config.Digest), 409},
		{"one/blobs/" + string(kept.Layers[0].Digest), 409},
		{"two/manifests/" + index.Digest, 409},
		{"two/manifests/" + string(list.Manifests[1].Digest), 409},
		{"one/manifests/" + loose.Digest, 202},
		{"one/blobs/" + string(gone.Layers[0].Digest), 202},
		{"one/blobs/" + string(gone.Layers[0].Digest), 404},
	} {
		if a := p.Do(nil, "DELETE", "/v2/modules/"+tc.path, nil, "Authorization", token); a.Status != tc.status {
			t.Errorf("DELETE %s: %d %s, want %d", tc.path, a.Status, a.Body, tc.status)
		}
	}
	deleted := 0
	for _, e := range audit(t, p, operatorclient.AuditQuery{}) {
		if e.Action == "registry.delete" && e.By == operatorapi.FirstOperator {
			deleted++
		}
	}
	if deleted != 2 {
		t.Errorf("%d deletions in the audit log, want 2", deleted)
	}
}
