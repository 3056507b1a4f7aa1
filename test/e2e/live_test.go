package e2e

import (
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/change"
)

// TestLiveChanges takes a running node through attach, detach, update and rollback. What it runs changes beneath it,
// and what was changed locally stays.
func TestLiveChanges(t *testing.T) {
	t.Parallel()
	p := newPlatform(t)
	for _, m := range []mod{base("1"), app("1"), site("1")} {
		p.Publish(m)
	}
	n := p.node("web", "base", "app")
	s := n.boot()
	first := s.status()
	if err := s.write("/etc/mine", "mine"); err != "" {
		t.Error(err)
	}
	p.Operator("assign", "web", "site").OK(t)

	u, code := s.change("update")
	if code != 0 || u.Outcome != change.WentLive || u.Generation != 2 || u.RootDigest != u.Expected {
		t.Fatalf("update: %+v, exit code %d, %+v", u, code, u.Plan)
	}
	if now := s.status(); now.Generation != 2 || now.RootDigest != u.RootDigest.String() || !now.InStep {
		t.Errorf("after an update: %+v", now)
	}
	if page := s.read("/etc/app/page"); !strings.HasPrefix(page, "the app's page") {
		t.Errorf("the page: %q", page)
	}
	if !s.has("/usr/share/x") || s.read("/etc/mine") != "mine" {
		t.Error("what is new isn't there, or what was changed here is gone")
	}
	if u, code := s.change("detach", "site"); code != 0 || u.Outcome != change.WentLive || s.has("/usr/share/x") {
		t.Errorf("detach: %+v, exit code %d", u, code)
	}
	if now := s.status(); now.RootDigest != first.RootDigest || !now.InStep {
		t.Errorf("after detach: %+v", now)
	}
	if u, code := s.change("attach", "site"); code != 0 || u.Outcome != change.WentLive || !s.has("/usr/share/x") {
		t.Errorf("attach: %+v, exit code %d", u, code)
	}
	if u, code := s.change("rollback", "1"); code != 0 || u.Outcome != change.WentLive || s.has("/usr/share/x") {
		t.Errorf("rollback: %+v, exit code %d", u, code)
	}
	if now := s.status(); now.RootDigest != first.RootDigest || !now.InStep || s.read("/etc/mine") != "mine" {
		t.Errorf("after a rollback: %+v", now)
	}
	s.exit()
}
