package change

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/change/desired"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/trial"
)

// refused returns the generation because of which a boot passes over the modules of the one that runs; 0 for none.
func (n *node) refused() uint64 {
	n.t.Helper()
	in, err := trial.Read(n.store)
	if err != nil {
		n.t.Fatal(err)
	}
	g, err := n.store.Generation(n.facts)
	if err != nil {
		n.t.Fatal(err)
	}
	of, _ := trial.Refused(in, g.Modules)
	return of
}

// TestNobodyLeavesWhatRuns: a boot isn't kept from what runs by a mark of a time when somebody went back from it.
func TestNobodyLeavesWhatRuns(t *testing.T) {
	t.Run("a rollback of a rollback", func(t *testing.T) {
		n := ready(t)
		n.must(Request{Kind: Rollback, Generation: 1})
		n.must(Request{Kind: Rollback, Generation: 2})
		n.is("back", 4, "app 1, base 2, site 1")
		if of := n.refused(); of != 0 {
			t.Errorf("because of generation %d", of)
		}
		if lefts, err := n.store.Lefts(); err != nil || len(lefts) != 1 || lefts[0].Generation != 3 {
			t.Errorf("%+v, %v", lefts, err)
		}
	})
	t.Run("a staged rollback that isn't good", func(t *testing.T) {
		n := ready(t)
		n.module("app", "1", map[string]string{"usr/app": long("app"), "etc/shared": long("app")})
		r := n.must(Request{Kind: Rollback, Generation: 1, Stage: true})
		if of := n.refused(); of != 2 {
			t.Errorf("while it is staged: because of generation %d", of)
		}
		if _, err := n.do(Request{Kind: Update}); fault.AreaOf(err) != fault.Policy || !strings.Contains(err.Error(), "somebody went back from it") || n.pointer(store.Staged) != r.Generation {
			t.Errorf("an update: %v", err)
		}
		if err := n.store.PutTrial(store.Trial{Generation: r.Generation, Attempts: 3, Limit: 3}); err != nil {
			t.Fatal(err)
		}
		if of := n.refused(); of != 0 {
			t.Errorf("after its trial: because of generation %d", of)
		}
	})
	t.Run("said anew", func(t *testing.T) {
		n := ready(t)
		n.module("app", "1", map[string]string{"usr/app": long("app"), "etc/shared": long("app")})
		n.must(Request{Kind: Rollback, Generation: 1, Stage: true})
		if r := n.must(Request{Kind: Update, Retry: true}); r.Outcome != Withdrawn || n.pointer(store.Staged) != 0 {
			t.Errorf("%+v", r)
		}
		if lefts, err := n.store.Lefts(); err != nil || len(lefts) != 0 {
			t.Errorf("%+v, %v", lefts, err)
		}
	})
	t.Run("a mark that a power cut left", func(t *testing.T) {
		n := ready(t)
		n.module("app", "1", map[string]string{"usr/app": long("app"), "etc/shared": long("app")})
		if err := n.store.PutLeft(store.Left{Generation: 2, For: 1, At: time.Unix(1, 0)}); err != nil {
			t.Fatal(err)
		}
		if of := n.refused(); of != 0 {
			t.Errorf("because of generation %d", of)
		}
		if r := n.must(Request{Kind: Update}); r.Outcome != InStep {
			t.Errorf("%+v", r)
		}
		if lefts, err := n.store.Lefts(); err != nil || len(lefts) != 0 {
			t.Errorf("%+v, %v", lefts, err)
		}
	})
}

// TestWhatIsStagedCounts: what is attached and detached is so to what the next boot takes.
func TestWhatIsStagedCounts(t *testing.T) {
	n := three(t)
	n.manifest = "reboot_required: true\n"
	tool := n.publish("tool", "1", map[string]string{"usr/tool": long("tool")}, n.key)
	kit := n.publish("kit", "1", map[string]string{"usr/kit": long("kit")}, n.key)
	attach := func(m nodeapi.Module) Request {
		return Request{Kind: Attach, Modules: []string{m.Repository + "@" + m.Digest}}
	}
	detach := func(name string) Request { return Request{Kind: Detach, Modules: []string{name}} }
	word := func(what, want string) {
		t.Helper()
		l, err := desired.ReadLocal(n.store.Path())
		text := strings.Join(l.Detached, " ")
		for _, a := range l.Attached {
			text += " +" + a.Name
		}
		if strings.TrimSpace(text) != want || err != nil {
			t.Errorf("%s: the administrator's word is %q, %v", what, text, err)
		}
	}
	if r := n.must(attach(tool)); r.Outcome != Staged {
		t.Fatalf("%+v", r)
	}
	dry := detach("tool")
	dry.DryRun = true
	if r := n.must(dry); r.Outcome != WouldWithdraw {
		t.Errorf("%+v", r)
	}
	if r := n.must(detach("tool")); r.Outcome != Withdrawn || r.Generation != 1 || n.pointer(store.Staged) != 0 {
		t.Errorf("what is staged only: %+v", r)
	}
	word("withdrawn", "")

	n.must(attach(tool))
	r := n.must(attach(kit))
	if r.Outcome != Staged || changes(r) != "added kit 1, added tool 1" || n.pointer(store.Staged) != r.Generation || !strings.Contains(r.Plan.Reasons[0], "is staged") {
		t.Errorf("another one: %+v", r)
	}
	word("another one", "+kit +tool")
	if r = n.must(detach("site")); r.Outcome != Staged || changes(r) != "added kit 1, added tool 1, removed site 1" {
		t.Errorf("and one less: %+v", r)
	}
	if again := n.must(detach("site")); again.Outcome != AlreadyStaged || again.Generation != r.Generation {
		t.Errorf("again: %+v", again)
	}
	if r = n.must(Request{Kind: Attach, Modules: []string{"site"}}); r.Outcome != Staged || changes(r) != "added kit 1, added tool 1" {
		t.Errorf("and back: %+v", r)
	}
	word("and back", "+kit +tool")
	// What failed its trial is nothing to go on with.
	if err := n.store.PutTrial(store.Trial{Generation: r.Generation, Attempts: 3, Limit: 3}); err != nil {
		t.Fatal(err)
	}
	if r = n.must(detach("site")); r.Outcome != WentLive || changes(r) != "removed site 1" {
		t.Errorf("after its trial: %+v", r)
	}
}

// TestTheJournalStaysWithTheMounts: where the way back fails, too, whoever comes next knows what it was about.
func TestTheJournalStaysWithTheMounts(t *testing.T) {
	n := ready(t)
	n.system.swapErr = errors.New("no room; and the way back failed")
	n.system.leaves = filepath.Join(n.run, "live.json")
	if _, err := n.do(Request{Kind: Update}); !errors.Is(err, n.system.swapErr) {
		t.Fatal(err)
	}
	var j journal
	if ok, err := readRun(n.run, JournalName, &j); !ok || err != nil || j.From != 2 || j.To != 3 {
		t.Errorf("%+v, %t, %v", j, ok, err)
	}
}

// TestJournalOfAnotherRoot: after a soft-reboot, what was begun before says nothing of what runs.
func TestJournalOfAnotherRoot(t *testing.T) {
	n := ready(t)
	c := n.changer()
	w, err := c.begin(Request{Kind: Update})
	if err == nil {
		err = w.journal(journal{From: 2, To: 1, Before: w.before(1)})
	}
	if err != nil {
		t.Fatal(err)
	}
	n.system.root.Mount, n.system.runs, n.facts = 7, 1, 1
	if text, err := n.changer().Recover(t.Context()); text != "" || err != nil || n.facts != 1 {
		t.Errorf("%q, %v; the facts say %d", text, err, n.facts)
	}
	if Unfinished(n.run) {
		t.Error("it still isn't finished")
	}
}

// TestWhatWasFoundGoodMeanwhile isn't staged again, and its way back stays, when a change for the next boot that was cut off is taken
// back.
func TestWhatWasFoundGoodMeanwhile(t *testing.T) {
	n := ready(t)
	staged := n.must(Request{Kind: Update, Stage: true}).Generation
	n.system.runs, n.facts = staged, staged // it is booted, on trial
	n.stepping(func(op string) error {
		if strings.HasPrefix(op, "local:") {
			panic(killed(op))
		}
		return nil
	})
	if at, err := n.dies(n.hook, Request{Kind: Detach, Modules: []string{"site"}, Stage: true}); at == "" || err != nil {
		t.Fatal(at, err)
	}
	n.stepping(nil)
	if err := n.store.Pass(staged, time.Now(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := n.changer().Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c, p, s := n.pointer(store.Current), n.pointer(store.Previous), n.pointer(store.Staged); c != staged || s != 0 || p == staged {
		t.Errorf("current %d, previous %d, staged %d", c, p, s)
	}
}
