package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/test/lab"
)

// update stages an update, and returns what the command prints and its exit code.
func (s *system) update(flags ...string) (change.Result, int) {
	s.t.Helper()
	return s.change(append([]string{"update", "--stage"}, flags...)...)
}

// change runs a command that changes what runs, and returns what it prints and its exit code.
func (s *system) change(args ...string) (change.Result, int) {
	s.t.Helper()
	r := s.agent(append(args, "--output", "json")...)
	var doc struct {
		change.Result
		Restart string `json:"restart"`
	}
	if r.Code == 0 || r.Code == 8 {
		if err := json.Unmarshal([]byte(r.Stdout), &doc); err != nil || doc.Restart != "none" {
			s.t.Fatalf("%v: %v, restart %q\n%s%s", args, err, doc.Restart, r.Stdout, r.Stderr)
		}
	}
	return doc.Result, r.Code
}

// boots lets the service run until the platform was told of a boot, and returns what the operator then
// sees.
func (s *system) boots() []operatorapi.Boot {
	s.t.Helper()
	s.do("start", "", "service", boot.AgentPath, "service", "--reconcile=off")
	defer s.do("stop", "", "service")
	for {
		if boots := s.detail().Boots; len(boots) > 0 {
			return boots
		}
		select {
		case <-s.process.Done:
			s.t.Fatalf("the system is gone\n%s", s.console())
		case <-tick():
		}
	}
}

// TestUpdateIsStaged: a running node is told to update, nothing changes for what runs, and the next
// boot is of what was staged; the operator sees that boot.
func TestUpdateIsStaged(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"), app("1"))
	n := p.node("web", "base", "app")
	s := n.boot()
	first := s.status()
	if u, code := s.update(); code != 0 || u.Outcome != change.InStep || u.Generation != 1 || len(u.Changes) != 0 {
		t.Errorf("nothing to do: %+v, exit code %d", u, code)
	}
	p.Publish(app("2"))
	records, objects := n.records(), len(n.objects())
	if u, code := s.update("--dry-run"); code != 0 || u.Outcome != change.WouldStage || len(u.Changes) != 1 || u.Changes[0].From != "1" || u.Changes[0].To != "2" || u.Changes[0].Size == 0 {
		t.Errorf("dry run: %+v, exit code %d", u, code)
	}
	n.sameRecords(records)
	if now := len(n.objects()); now != objects {
		t.Errorf("a dry run made %d objects of %d", now, objects)
	}
	u, code := s.update()
	if code != 0 || u.Outcome != change.Staged || u.Generation != 2 || u.RootDigest != u.Expected || u.FromRootDigest.String() != first.RootDigest || u.Pulled.Modules != 1 {
		t.Errorf("update: %+v, exit code %d", u, code)
	}
	if now := s.status(); now.RootDigest != first.RootDigest || now.Generation != 1 || !now.InStep || n.pointer("staged") != "2" {
		t.Errorf("what runs changed: %+v, staged %s", now, n.pointer("staged"))
	}
	if again, code := s.update(); code != 0 || again.Outcome != change.AlreadyStaged || again.Generation != 2 {
		t.Errorf("again: %+v, exit code %d", again, code)
	}
	if r := s.agent("update", "--reboot", "sideways"); r.Code != 1 || !strings.Contains(r.Stderr, "auto, soft, full or none") {
		t.Errorf("%+v", r)
	}
	s.exit()

	s = n.boot()
	if now := s.status(); now.Generation != 2 || now.RootDigest != u.RootDigest.String() || !now.InStep {
		t.Errorf("after a boot: %+v", now)
	}
	boots := s.boots()
	if len(boots) != 1 || boots[0].Outcome != "handed over" || boots[0].Generation != 2 || boots[0].RootDigest != u.RootDigest.String() || len(boots[0].Stages) < 5 {
		t.Errorf("the operator sees %+v", boots)
	}
	s.exit()
}

// TestUpdateRefuses: a module that is refused stays as it runs, and the exit code says so; without the
// platform nothing changes.
func TestUpdateRefuses(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"), app("1"))
	n := p.node("web", "base", "app")
	s := n.boot()
	p.Publish(base("2"))
	p.Publish(app("2"), "--key", lab.ForeignKey(t)+".key")
	u, code := s.update()
	if code != 8 || u.Outcome != change.Staged || len(u.Failed) != 1 || u.Failed[0].Name != "app" || u.Failed[0].Kept != "1" || len(u.Changes) != 1 || u.Changes[0].Name != "base" {
		t.Errorf("beside an unsigned one: %+v, exit code %d", u, code)
	}
	p.Stop()
	records := n.records()
	if _, code := s.update(); code != 5 {
		t.Errorf("without the platform: exit code %d", code)
	}
	n.sameRecords(records)
	s.exit()
}
