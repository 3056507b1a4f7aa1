package platform_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
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

// TestDeleteSignatures deletes, with a token of the role deploy, what proves a registered module: a bundle that refers to it, and signatures
// and attestations by cosign's tags. That is refused, and so is to put something else in their place.
func TestDeleteSignatures(t *testing.T) {
	p := platformtest.Start(t)
	m := p.Publish(platformtest.Module{Name: "one", Version: "1.0"})
	loose := p.Push(platformtest.Module{Name: "one", Version: "2.0", Files: map[string]string{"usr/x": "x"}})
	created, err := p.Operator.CreateOperator(t.Context(), operatorapi.OperatorCreate{Name: "ci", Role: operatorapi.RoleDeploy})
	if err != nil {
		t.Fatal(err)
	}
	do := func(method, path string, body any, headers ...string) platformtest.Answer {
		return p.Do(nil, method, "/v2/modules/one/"+path, body, append(headers, "Authorization", "Bearer "+created.Token)...)
	}
	blob := func(text string) ocispec.Descriptor {
		t.Helper()
		sum := digest.FromString(text)
		if a := do("POST", "blobs/uploads/?digest="+string(sum), strings.NewReader(text)); a.Status != 201 {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
		return ocispec.Descriptor{MediaType: "application/octet-stream", Digest: sum, Size: int64(len(text))}
	}
	put := func(reference string, subject string, layers ...ocispec.Descriptor) (digest.Digest, int) {
		t.Helper()
		doc := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: blob("{}"), Layers: layers}
		doc.SchemaVersion = 2
		if subject != "" {
			doc.Subject = &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.Digest(subject), Size: 1}
		}
		data, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		sum := digest.FromBytes(data)
		if reference == "" {
			reference = string(sum)
		}
		return sum, do("PUT", "manifests/"+reference, bytes.NewReader(data), "Content-Type", ocispec.MediaTypeImageManifest).Status
	}
	tag := func(digest, suffix string) string { return strings.Replace(digest, ":", "-", 1) + suffix }
	first := blob("signature")
	first.Annotations = map[string]string{"dev.cosignproject.cosign/signature": "first"}
	bundle, _ := put("", m.Digest, blob("bundle"))
	sig, _ := put(tag(m.Digest, ".sig"), "", first)
	att, _ := put(tag(m.Digest, ".att"), "", blob("attestation"))
	free, status := put(tag(loose.Digest, ".sig"), "", blob("free"))
	if status != 201 {
		t.Fatal(status)
	}
	for _, tc := range []struct {
		path   string
		status int
	}{
		{"blobs/" + string(digest.FromString("bundle")), 409},
		{"blobs/" + string(digest.FromString("signature")), 409},
		{"blobs/" + string(digest.FromString("attestation")), 409},
		{"manifests/" + string(bundle), 409},
		{"manifests/" + string(sig), 409},
		{"manifests/" + string(att), 409},
		{"manifests/" + tag(m.Digest, ".sig"), 409},
		{"manifests/" + tag(m.Digest, ".att"), 409},
		{"blobs/" + string(digest.FromString("free")), 202},
		{"manifests/" + tag(loose.Digest, ".sig"), 202},
		{"manifests/" + string(free), 202},
	} {
		if a := do("DELETE", tc.path, nil); a.Status != tc.status {
			t.Errorf("DELETE %s: %d %s, want %d", tc.path, a.Status, a.Body, tc.status)
		}
	}
	changed := first
	changed.Annotations = map[string]string{"dev.cosignproject.cosign/signature": "none"}
	second := blob("signature")
	second.Annotations = map[string]string{"dev.cosignproject.cosign/signature": "second"}
	for name, tc := range map[string]struct {
		layers []ocispec.Descriptor
		status int
	}{
		"another in its place":    {[]ocispec.Descriptor{second}, 409},
		"one that says otherwise": {[]ocispec.Descriptor{changed, second}, 409},
		"nothing":                 {[]ocispec.Descriptor{}, 409},
		"one more":                {[]ocispec.Descriptor{first, second}, 201},
	} {
		if _, status := put(tag(m.Digest, ".sig"), "", tc.layers...); status != tc.status {
			t.Errorf("%s: %d, want %d", name, status, tc.status)
		}
	}
	if _, status := put(tag(m.Digest, ".sig"), "", first); status != 409 {
		t.Errorf("the second signature was taken away: %d", status)
	}
}
