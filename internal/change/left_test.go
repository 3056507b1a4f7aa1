package change

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
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
