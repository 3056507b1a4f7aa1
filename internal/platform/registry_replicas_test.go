package platform_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// TestReplicasPush pushes a blob in several requests, each to another platform, as through a load balancer.
func TestReplicasPush(t *testing.T) {
	one := several(t)
	two := one.Replica()
	token := "Bearer " + one.Config.Token.Reveal()
	do := func(p *platformtest.Platform, method, path, body string, status int) platformtest.Answer {
		t.Helper()
		a := p.Do(nil, method, path, strings.NewReader(body), "Authorization", token)
		if a.Status != status {
			t.Fatalf("%s %s: %d %s, want %d", method, path, a.Status, a.Body, status)
		}
		return a
	}
	sum := digest.FromString("some content").String()
	at := do(one, http.MethodPost, "/v2/modules/x/blobs/uploads/", "", http.StatusAccepted).Header.Get("Location")
	do(two, http.MethodPatch, at, "some", http.StatusAccepted)
	do(one, http.MethodPatch, at, " con", http.StatusAccepted)
	one = one.Restart()
	do(one, http.MethodPatch, at, "te", http.StatusAccepted)
	do(two, http.MethodPut, at+"?digest="+sum, "nt", http.StatusCreated)
	if a := do(one, http.MethodGet, "/v2/modules/x/blobs/"+sum, "", http.StatusOK); string(a.Body) != "some content" {
		t.Errorf("%s", a.Body)
	}
}
