package agentcli

import (
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodeclient"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
)

// credentials are a node's, which don't change.
type credentials nodehttp.Material

// Material implements nodeclient.Source.
func (c *credentials) Material() (*nodehttp.Material, error) { return (*nodehttp.Material)(c), nil }

// TestAnOldConnectionConfirmsNothing: the service had a connection to the platform before the change, which goes on, and after it nobody gets
// a new one, as where a firewall lets through what is established.
func TestAnOldConnectionConfirmsNothing(t *testing.T) {
	n := newANode(t, pastOf(t, 3), 3)
	ca := pkitest.NewCA(t, "CA")
	calls := 0
	server := ca.Serve(ca.Web(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls++
		if err := json.NewEncoder(w).Encode(map[string]any{"success": true, "data": nodeapi.ModuleList{Modules: []nodeapi.Module{}}}); err != nil {
			t.Error(err)
		}
	}), nil)
	platform := &nodePlatform{open: func() (*nodeclient.Client, error) {
		return nodeclient.New(nodeclient.Config{
			Credentials: &credentials{PlatformURL: server.URL, CAs: []*x509.Certificate{ca.Cert}, Certificate: ca.Issue(ca.Node("node"))},
			Retry:       nodehttp.Backoff{Tries: 1},
		})
	}}
	defer platform.close()
	beat := func() {
		t.Helper()
		before := calls
		_, _ = platform.Heartbeat(t.Context(), nodeapi.Heartbeat{}) // the answer isn't a heartbeat's
		if calls != before+1 {
			t.Fatal("the heartbeat doesn't come through")
		}
	}
	u := newUnfinished(n.state, platform, slog.New(slog.DiscardHandler))
	u.root, u.systemd = n.root, &aSystemd{}
	look := func(waits bool, when string) {
		t.Helper()
		if _, err := u.look(t.Context()); err != nil || n.has(change.ConfirmName) != waits {
			t.Errorf("%s: %v; it waits: %t", when, err, n.has(change.ConfirmName))
		}
	}
	beat()
	n.waits(3, time.Hour)
	look(false, "the platform is there")
	n.waits(3, time.Hour)
	if err := server.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	beat()
	look(true, "only the old connection goes on")
	beat()
}
