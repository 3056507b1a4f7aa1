package platform_test

import (
	"crypto"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// rotated enrolls a node and gives it a second certificate, which it uses.
func rotated(t *testing.T, p *platformtest.Platform, name string) (old, current *platformtest.Node) {
	t.Helper()
	old = p.Enroll(name, "amd64")
	p.Clock.Advance(time.Minute)
	key := p.Key()
	var answer nodeapi.EnrollResponse
	p.Refresh(old, key).Into(&answer)
	current = p.With(old, answer.CertPEM, key)
	if code := works(p, current); code != "" {
		t.Fatalf("%s: %s", name, code)
	}
	return old, current
}

// shared lets two machines report by one certificate.
func shared(p *platformtest.Platform, node *platformtest.Node) {
	for _, boot := range []string{"a", "b", "a"} {
		hb := heartbeat()
		hb.BootID = boot
		p.Do(node, http.MethodPost, nodeapi.PathHeartbeat, hb).Into(&nodeapi.HeartbeatResponse{})
	}
}

// TestApproveOneMatter: who knows of the two machines doesn't let one of them in by the same word, nor the other way
// about; nor is a renewal approved that came after the operator looked.
func TestApproveOneMatter(t *testing.T) {
	p := platformtest.Start(t)
	ctx := t.Context()
	old, current := rotated(t, p, "web-1")
	shared(p, current)
	approve := func(in operatorapi.ApproveRequest) (operatorapi.ApproveResult, error) {
		return p.Operator.ApproveNode(ctx, "web-1", in)
	}
	detail := func() operatorapi.NodeDetail {
		t.Helper()
		d, err := p.Operator.Node(ctx, "web-1")
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	refused := func(in operatorapi.ApproveRequest, wanted ...string) {
		t.Helper()
		done, err := approve(in)
		if err == nil {
			t.Fatalf("%+v is accepted: %+v", in, done)
		}
		wants(t, fmt.Sprintf("%v", err)+fault.HintOf(err), wanted...)
	}
	key := p.Key()
	p.Renew(old, key).Into(&nodeapi.RenewResponse{})
	waiting := detail().Renewals[0]
	refused(operatorapi.ApproveRequest{}, "both a renewal of node web-1 waits", "--renewal "+waiting.ID[:8], "certificate "+waiting.Serial,
		waiting.AskedAt.Format(time.RFC3339), "last from 127.0.0.1", "--attention")
	refused(operatorapi.ApproveRequest{Renewal: waiting.ID[:3]}, "more of a renewal's ID")
	refused(operatorapi.ApproveRequest{Renewal: "00000000-none"}, "nothing of node web-1 waits")
	refused(operatorapi.ApproveRequest{Attention: true, Deny: true}, "goes with neither")
	refused(operatorapi.ApproveRequest{Attention: true, Renewal: waiting.ID}, "goes with neither")
	if d := detail(); len(d.Node.Attention) != 1 || d.Renewals[0].State != "waiting" {
		t.Fatalf("a refused word did something: %+v", d)
	}
	// The doubt alone.
	done, err := approve(operatorapi.ApproveRequest{Attention: true})
	if err != nil || len(done.Cleared) != 1 || len(done.Renewals) != 0 {
		t.Fatalf("%+v, %v", done, err)
	}
	refused(operatorapi.ApproveRequest{Attention: true}, "nothing of node web-1 waits")
	if d := detail(); len(d.Node.Attention) != 0 || d.Renewals[0].State != "waiting" {
		t.Fatalf("%+v", d)
	}
	// The renewal alone, and beside it one that came since.
	shared(p, current)
	p.Renew(old, p.Key()).Into(&nodeapi.RenewResponse{})
	refused(operatorapi.ApproveRequest{}, "--attention")
	done, err = approve(operatorapi.ApproveRequest{Renewal: waiting.ID})
	if err != nil || len(done.Cleared) != 0 || len(done.Renewals) != 1 || done.Renewals[0].ID != waiting.ID {
		t.Fatalf("%+v, %v", done, err)
	}
	d := detail()
	if len(d.Node.Attention) != 1 || d.Node.WaitingRenewals != 1 {
		t.Errorf("%+v", d)
	}
	issued(t, p.Renew(old, key))
	// A denial doesn't clear the doubt; then each is alone, and the plain word does.
	if _, err := approve(operatorapi.ApproveRequest{Deny: true}); err != nil {
		t.Fatal(err)
	}
	if done, err = approve(operatorapi.ApproveRequest{}); err != nil || len(done.Cleared) != 1 {
		t.Errorf("%+v, %v", done, err)
	}
}

// TestBeginningOfTwo: what may be either of two renewals names neither, for a denial too.
func TestBeginningOfTwo(t *testing.T) {
	p := platformtest.Start(t)
	old, _ := rotated(t, p, "web-1")
	for range 2 {
		p.Renew(old, p.Key()).Into(&nodeapi.RenewResponse{})
	}
	execute(t, p, "UPDATE renewals SET id = '5eed-' || id")
	for _, deny := range []bool{false, true} {
		_, err := p.Operator.ApproveNode(t.Context(), "web-1", operatorapi.ApproveRequest{Renewal: "5eed", Deny: deny})
		if err == nil || !strings.Contains(err.Error(), "several renewals of node web-1 wait") {
			t.Errorf("deny %v: %v", deny, err)
		}
	}
	done, err := p.Operator.ApproveNode(t.Context(), "web-1", operatorapi.ApproveRequest{Deny: true})
	if err != nil || len(done.Renewals) != 2 {
		t.Errorf("%+v, %v", done, err)
	}
}

// TestApproveUnfiled: after a backup of the database was restored, one word approves what waits for that reason, and
// nothing else.
func TestApproveUnfiled(t *testing.T) {
	p := platformtest.Start(t)
	ctx := t.Context()
	nodes := map[string]*platformtest.Node{}
	keys := map[string]crypto.Signer{}
	ask := func(node *platformtest.Node, key crypto.Signer) {
		t.Helper()
		var out nodeapi.RenewResponse
		p.Renew(node, key).Into(&out)
		if out.Status != nodeapi.RenewWaiting {
			t.Fatalf("%+v", out)
		}
	}
	for _, name := range []string{"plain-1", "plain-2", "plain-3", "twice", "doubt", "denied", "asleep"} {
		_, nodes[name] = rotated(t, p, name)
		keys[name] = p.Key()
	}
	copied, _ := rotated(t, p, "copied")
	// The backup is older than the second certificates, but for that of "copied".
	execute(t, p, "DELETE FROM certificates WHERE origin = 'refresh' AND node_id <> ?", copied.ID)
	execute(t, p, "UPDATE certificates SET superseded_at = NULL WHERE node_id <> ?", copied.ID)
	for name, node := range nodes {
		if code := works(p, node); code != nodeapi.CodeCertificateSuperseded {
			t.Fatalf("%s: %q", name, code)
		}
		if name != "asleep" {
			ask(node, keys[name])
		}
	}
	ask(nodes["twice"], p.Key())
	ask(copied, p.Key())
	execute(t, p, "INSERT INTO attention (node_id, kind, at, text) VALUES (?, 'boot_id', 1, 'two machines')", nodes["doubt"].ID)
	if _, err := p.Operator.ApproveNode(ctx, "denied", operatorapi.ApproveRequest{Deny: true}); err != nil {
		t.Fatal(err)
	}

	check := func(list operatorapi.UnfiledList, err error, state, want, left string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		var got, others []string
		for _, u := range list.Renewals {
			got = append(got, u.NodeName)
			if u.Renewal.State != state || !u.Renewal.Unfiled || u.Renewal.From != "127.0.0.1" || u.NodeID != nodes[u.NodeName].ID {
				t.Errorf("%+v", u)
			}
		}
		for _, u := range list.Left {
			others = append(others, u.NodeName+": "+u.Why)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%v, want %s", got, want)
		}
		if strings.Join(others, "; ") != left {
			t.Errorf("left: %q", others)
		}
	}
	const left = "doubt: its identity calls for attention; " +
		"twice: several renewals of it wait, and only one machine can be it; twice: several renewals of it wait, and only one machine can be it"
	list, err := p.Operator.Unfiled(ctx)
	check(list, err, "waiting", "plain-1 plain-2 plain-3", left)
	if list, err := p.Operator.Nodes(ctx); err != nil || list.Nodes[4].WaitingRenewals != 1 {
		t.Fatalf("to list them decides: %+v, %v", list, err)
	}
	list, err = p.Operator.ApproveUnfiled(ctx)
	check(list, err, "approved", "plain-1 plain-2 plain-3", left)
	list, err = p.Operator.ApproveUnfiled(ctx)
	check(list, err, "", "", left)
	wants(t, eventsOf(t, p, "plain-2"), "certificate.unfiled", "renewal.approved an operator approved the renewal of certificate", "with all whose certificate wasn't on file")

	// Another machine with a copy of the identity gets nothing by a second word: before the node has its certificate,
	// and after.
	theirs := p.Key()
	ask(nodes["plain-1"], theirs)
	list, err = p.Operator.ApproveUnfiled(ctx)
	const settled = "plain-1: another renewal of it is approved, or it has had another certificate since; "
	check(list, err, "", "", "doubt: its identity calls for attention; "+settled+strings.SplitN(left, "; ", 2)[1])
	for _, name := range []string{"plain-1", "plain-2", "plain-3"} {
		next := p.With(nodes[name], issued(t, p.Renew(nodes[name], keys[name])).CertPEM, keys[name])
		if code := works(p, next); code != "" {
			t.Errorf("%s: %s", name, code)
		}
	}
	list, err = p.Operator.ApproveUnfiled(ctx)
	check(list, err, "", "", "doubt: its identity calls for attention; "+settled+strings.SplitN(left, "; ", 2)[1])
	ask(nodes["plain-1"], theirs)
	// A node that was off comes later.
	ask(nodes["asleep"], keys["asleep"])
	if list, err := p.Operator.ApproveUnfiled(ctx); err != nil || len(list.Renewals) != 1 || list.Renewals[0].NodeName != "asleep" {
		t.Errorf("%+v, %v", list, err)
	}
	if d, err := p.Operator.Node(ctx, "copied"); err != nil || d.Node.WaitingRenewals != 1 || d.Renewals[0].Unfiled {
		t.Errorf("what wasn't restored is approved too: %+v, %v", d, err)
	}
}
