package platform_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// TestDatabaseRestored: a certificate that the database has lost, as one from before its issue was restored, is told to be
// renewed, and is once an operator approves; one that isn't younger than what is on file stays a stranger's.
func TestDatabaseRestored(t *testing.T) {
	p := platformtest.Start(t)
	first := p.Enroll("web-1", "amd64")
	p.Clock.Advance(time.Hour)
	key := p.Key()
	var answer nodeapi.EnrollResponse
	p.Refresh(first, key).Into(&answer)
	second := p.With(first, answer.CertPEM, key)
	if code := works(p, second); code != "" {
		t.Fatalf("%s", code)
	}
	restore := func() {
		t.Helper()
		execute(t, p, "DELETE FROM certificates WHERE node_id = ? AND origin = 'refresh'", first.ID)
		execute(t, p, "UPDATE certificates SET superseded_at = NULL WHERE node_id = ?", first.ID)
	}
	restore()
	for range 2 {
		if code := works(p, second); code != nodeapi.CodeCertificateSuperseded {
			t.Fatalf("%q", code)
		}
	}
	// A node whose certificate ends the handshake only renews.
	restore()
	next := p.Key()
	var waiting nodeapi.RenewResponse
	p.Renew(second, next).Into(&waiting)
	if waiting.Status != nodeapi.RenewWaiting {
		t.Fatalf("%+v", waiting)
	}
	if _, err := p.Operator.ApproveNode(t.Context(), "web-1", operatorapi.ApproveRequest{}); err != nil {
		t.Fatal(err)
	}
	third := p.With(second, issued(t, p.Renew(second, next)).CertPEM, next)
	if code := works(p, third); code != "" {
		t.Errorf("after the approval: %s", code)
	}
	if code := works(p, first); code != nodeapi.CodeCertificateSuperseded {
		t.Errorf("what was on file: %q", code)
	}
	wants(t, eventsOf(t, p, "web-1"), "certificate.unfiled")

	// What was dropped from the file, and is older, is nobody's.
	execute(t, p, "UPDATE tokens SET certificate_id = NULL WHERE node_id = ?", first.ID)
	execute(t, p, "DELETE FROM certificates WHERE id = (SELECT id FROM certificates WHERE node_id = ? ORDER BY rowid LIMIT 1)", first.ID)
	if code := works(p, first); code != nodeapi.CodeUnauthorized {
		t.Errorf("an older one: %q", code)
	}
	if a := p.Renew(first, p.Key()); a.Envelope.Code != nodeapi.CodeUnauthorized {
		t.Errorf("an older one renews: %d %s", a.Status, a.Body)
	}
	// A node that isn't there, or not in service, gets no further by it.
	execute(t, p, "DELETE FROM certificates WHERE node_id = ?", first.ID)
	execute(t, p, "UPDATE nodes SET state = 'terminated' WHERE id = ?", first.ID)
	if code := works(p, third); code != nodeapi.CodeUnauthorized {
		t.Errorf("out of service: %q", code)
	}
}

// TestLostOfARetiredAuthority: what a retired authority signed is worth nothing where it isn't on file: its key may be what
// was stolen.
func TestLostOfARetiredAuthority(t *testing.T) {
	p := platformtest.Start(t)
	node := p.Enroll("web-1", "amd64")
	ctx := t.Context()
	if _, err := p.Operator.PrepareCA(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Operator.ActivateCA(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Operator.RetireCA(ctx, operatorapi.CARetire{Force: true}); err != nil {
		t.Fatal(err)
	}
	execute(t, p, "UPDATE tokens SET certificate_id = NULL WHERE node_id = ?", node.ID)
	execute(t, p, "DELETE FROM certificates WHERE node_id = ?", node.ID)
	a := p.Renew(node, p.Key())
	if a.Status != http.StatusUnauthorized || a.Envelope.Code != nodeapi.CodeUnauthorized {
		t.Errorf("%d %s", a.Status, a.Body)
	}
}

// TestRevokedAgain: a revocation that is made again after a backup was restored counts for what the database has lost, too:
// what was shown already, and what the machine shows only afterwards.
func TestRevokedAgain(t *testing.T) {
	p := platformtest.Start(t)
	ctx := t.Context()
	nodes := map[string]*platformtest.Node{}
	for _, name := range []string{"before", "after", "again"} {
		_, nodes[name] = rotated(t, p, name)
	}
	execute(t, p, "DELETE FROM certificates WHERE origin = 'refresh'")
	execute(t, p, "UPDATE certificates SET superseded_at = NULL")
	var out nodeapi.RenewResponse
	p.Renew(nodes["before"], p.Key()).Into(&out)
	if out.Status != nodeapi.RenewWaiting {
		t.Fatalf("%+v", out)
	}
	for name := range nodes {
		if _, err := p.Operator.RevokeNode(ctx, name, operatorapi.RevokeRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	for name, node := range nodes {
		if a := p.Renew(node, p.Key()); a.Envelope.Code != nodeapi.CodeCertificateRevoked {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
		if code := works(p, node); code != nodeapi.CodeCertificateRevoked {
			t.Errorf("%s: %q", name, code)
		}
	}
	if list, err := p.Operator.ApproveUnfiled(ctx); err != nil || len(list.Renewals)+len(list.Left) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	wants(t, eventsOf(t, p, "after"), "it was revoked with its node")
	// What the node gets by a new token is another matter, also where that is lost.
	p.Clock.Advance(time.Hour)
	fresh := p.EnrollAgain("again")
	execute(t, p, "UPDATE tokens SET certificate_id = NULL WHERE node_id = ?", fresh.ID)
	execute(t, p, "DELETE FROM certificates WHERE node_id = ? AND revoked_at IS NULL", fresh.ID)
	if code := works(p, fresh); code != nodeapi.CodeCertificateSuperseded {
		t.Errorf("%q", code)
	}
}
