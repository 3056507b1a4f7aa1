package boot

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
	"github.com/powernode/powernode-agent/internal/secret"
)

// TestRenewalThatWaits has nodes boot whose certificate ended too long ago for the platform to renew it by itself:
// with something to run, and without.
func TestRenewalThatWaits(t *testing.T) {
	for _, warm := range []bool{true, false} {
		p := platformtest.Start(t)
		if _, err := p.Operator.CreateNode(t.Context(), operatorapi.NodeCreate{Name: "web-1", Architecture: "amd64"}); err != nil {
			t.Fatal(err)
		}
		token, err := p.Operator.CreateToken(t.Context(), "web-1", operatorapi.TokenCreate{})
		if err != nil {
			t.Fatal(err)
		}
		h := newHistory(t)
		if warm {
			h.ran("web 1.0")
		}
		var console bytes.Buffer
		b := h.boot(&console)
		b.mode, b.config.Namespace = Namespace, true
		b.config.Now, b.config.Trust = p.Clock.Now, filepath.Join(trustDir(t, "trust.yaml"), "trust.yaml")
		b.openClock()
		b.discovered = identity.Identity{PlatformURL: p.URL, CAPEM: []byte(p.Config.CAPEM), Token: secret.New(token.Token)}
		if said, err := b.enroll(t.Context()); err != nil || b.credentials == nil {
			t.Fatalf("%s, %v", said, err)
		}
		first := b.credentials

		p.Clock.Advance(365 * 24 * time.Hour)
		next := func() (string, error) {
			console.Reset()
			b.clock, b.credentials, b.discovered = nil, nil, identity.Identity{}
			b.openClock()
			return b.enroll(t.Context())
		}
		said, err := next()
		if !strings.Contains(console.String(), "waits for an operator: the renewal waits for an operator's approval: powernode node approve web-1") {
			t.Errorf("the console says\n%s", &console)
		}
		switch {
		case warm && (err != nil || said != "credentials are expired" || b.plan.back.Generation != 1 || b.credentials != nil):
			t.Errorf("with something to run: %s, %v, %+v", said, err, b.plan.back)
		case !warm && enroll.AsWaiting(err) == nil:
			t.Errorf("with nothing to run: %s, %v", said, err)
		}
		if _, err := p.Operator.ApproveNode(t.Context(), "web-1", operatorapi.ApproveRequest{}); err != nil {
			t.Fatal(err)
		}
		if said, err := next(); err != nil || b.credentials == nil || b.credentials.Serial() == first.Serial() {
			t.Errorf("once approved: %s, %v", said, err)
		}
	}
}
