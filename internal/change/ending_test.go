package change

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/store"
)

// command does what a command does with a request.
func (n *node) command(r Request, change ...func(*Config)) (*Result, error) {
	n.t.Helper()
	c := n.changer(change...)
	e, err := c.Clear(n.t.Context(), r)
	if err != nil {
		return nil, err
	}
	result := e.Result
	if result == nil {
		if result, err = c.Do(n.t.Context(), r); err != nil {
			return nil, err
		}
	}
	result.Remarks = append(e.Said, result.Remarks...)
	return result, c.Forget()
}

// TestRollbackAroundTheDeadline: whoever types it while a change waits, or just after its time, gets what ran before, and nothing older.
func TestRollbackAroundTheDeadline(t *testing.T) {
	for name, c := range map[string]struct {
		window  time.Duration
		request Request
		change  func(*Config)
		staged  uint64
	}{
		"in the window":             {time.Hour, Request{}, nil, 0},
		"after it":                  {time.Nanosecond, Request{}, nil, 0},
		"in the window, not live":   {time.Hour, Request{}, func(c *Config) { c.Running.NotLive = "x" }, 2},
		"after it, not live":        {time.Nanosecond, Request{}, func(c *Config) { c.Running.NotLive = "x" }, 2},
		"in the window, for a boot": {time.Hour, Request{Stage: true}, nil, 2},
	} {
		t.Run(name, func(t *testing.T) {
			n := ready(t)
			n.must(Request{Kind: Attach, Modules: []string{"site"}})
			waits, err := n.do(Request{Kind: Detach, Modules: []string{"site"}, Confirm: c.window})
			if err != nil {
				t.Fatal(err)
			}
			n.down = errSilent
			c.request.Kind = Rollback
			var changes []func(*Config)
			if c.change != nil {
				changes = append(changes, c.change)
			}
			dry := c.request
			dry.DryRun = true
			if r, err := n.command(dry, changes...); err != nil || len(r.Changes) != 1 || r.Changes[0].Kind != "added" {
				t.Errorf("a dry run: %+v, %v", r, err)
			}
			r, err := n.command(c.request, changes...)
			if err != nil || r.Generation != 2 || n.pointer(store.Staged) != c.staged {
				t.Fatalf("%+v, %v; generation %d is staged", r, err, n.pointer(store.Staged))
			}
			if c.staged == 0 {
				n.is("rolled back", 2, "app 1, base 2, site 1")
			}
			if _, left, err := Waiting(n.run); left || err != nil {
				t.Error("it still waits", err)
			}
			// Whoever waited for it learns the same.
			if err := n.changer().Settle(t.Context(), false, waits); err != nil || waits.Outcome != TakenBack || waits.Generation != 2 || waits.Plan != nil != (c.staged != 0) {
				t.Errorf("%+v, %v", waits, err)
			}
			if c.staged != 0 && !strings.Contains(strings.Join(waits.Remarks, "; "), "at the next boot") {
				t.Errorf("%q", waits.Remarks)
			}
		})
	}
}

// TestRollbackOfWhatWasInterrupted: what was taken back before isn't rolled back once more.
func TestRollbackOfWhatWasInterrupted(t *testing.T) {
	n := ready(t)
	n.stepping(func(op string) error {
		if op == "swap:half" {
			panic(killed(op))
		}
		return nil
	})
	if at, err := n.dies(nil, Request{Kind: Detach, Modules: []string{"site"}}); at == "" {
		t.Fatal("it isn't killed", err)
	}
	n.stepping(nil)
	r, err := n.command(Request{Kind: Rollback})
	if err != nil || r.Outcome != WentLive || r.Generation != 2 || !strings.Contains(strings.Join(r.Remarks, "; "), "ask once more") {
		t.Errorf("%+v, %v", r, err)
	}
	n.is("taken back", 2, "app 1, base 2, site 1")
	if r, err := n.command(Request{Kind: Rollback}); err != nil || strings.Contains(changes(r), "site") || r.Generation == 2 {
		t.Errorf("once more: %+v, %v", r, err)
	}
}

// TestRollbackThatWasInterrupted: typed again, it goes back, once.
func TestRollbackThatWasInterrupted(t *testing.T) {
	for _, at := range []string{"swap:half", "finish"} {
		n := ready(t)
		n.stepping(func(op string) error {
			if op == at {
				panic(killed(op))
			}
			return nil
		})
		if dead, err := n.dies(nil, Request{Kind: Rollback}); dead == "" {
			t.Fatal("it isn't killed", err)
		}
		n.stepping(nil)
		r, err := n.command(Request{Kind: Rollback})
		if at == "finish" {
			// It counted, and isn't done twice.
			if err != nil || len(r.Changes) != 0 || !strings.Contains(strings.Join(r.Remarks, "; "), "ask once more") {
				t.Errorf("%s: %+v, %v", at, r, err)
			}
			continue
		}
		if err != nil || changes(r) != "changed base 2 1" {
			t.Errorf("%s: %+v, %v", at, r, err)
		}
	}
}

// TestRollbackInAWindowThatWasInterrupted after it counted: typed again, it goes no further, though there is an older generation.
func TestRollbackInAWindowThatWasInterrupted(t *testing.T) {
	n := ready(t)
	if _, err := n.do(Request{Kind: Detach, Modules: []string{"site"}, Confirm: time.Hour}); err != nil {
		t.Fatal(err)
	}
	n.stepping(func(op string) error {
		if op == "finish" {
			panic(killed(op))
		}
		return nil
	})
	dead := func() (at killed) {
		defer func() { at, _ = recover().(killed) }()
		_, err := n.command(Request{Kind: Rollback})
		t.Error("it isn't killed", err)
		return ""
	}()
	if dead == "" {
		t.FailNow()
	}
	n.stepping(nil)
	r, err := n.command(Request{Kind: Rollback})
	if err != nil || r.Generation != 2 || len(r.Changes) != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	n.is("gone back once", 2, "app 1, base 2, site 1")
	if _, waits, err := Waiting(n.run); err != nil || waits {
		t.Errorf("something waits: %v, %v", waits, err)
	}
}

// TestRollbackOfWhatSomebodyTookBack: also where nobody has written that down yet.
func TestRollbackOfWhatSomebodyTookBack(t *testing.T) {
	n := ready(t)
	if _, err := n.do(Request{Kind: Detach, Modules: []string{"site"}, Confirm: time.Nanosecond}); err != nil {
		t.Fatal(err)
	}
	record, err := os.ReadFile(filepath.Join(n.run, ConfirmName))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.changer().FinishEarlier(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.run, ConfirmName), record, 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := n.command(Request{Kind: Rollback}); err != nil || r.Generation != 2 || len(r.Changes) != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	n.is("taken back", 2, "app 1, base 2, site 1")
}

// TestSettledByAnother: who waits is told what became of the change, whoever ended it, and whatever came after that.
func TestSettledByAnother(t *testing.T) {
	begin := func(t *testing.T, window time.Duration) (*node, *Result) {
		t.Helper()
		n := ready(t)
		r, err := n.do(Request{Kind: Detach, Modules: []string{"site"}, Confirm: window})
		if err != nil {
			t.Fatal(err)
		}
		return n, r
	}
	settle := func(n *node, r *Result, reached bool) {
		t.Helper()
		if err := n.changer().Settle(n.t.Context(), reached, r); err != nil {
			t.Fatal(err)
		}
	}
	for _, forgotten := range []bool{false, true} {
		forget := func(n *node) {
			t.Helper()
			if forgotten {
				if err := os.WriteFile(filepath.Join(n.run, EndingsName), []byte("x"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		n, r := begin(t, time.Nanosecond)
		if _, err := n.changer(func(c *Config) { c.Running.NotLive = "x" }).FinishEarlier(t.Context()); err != nil {
			t.Fatal(err)
		}
		forget(n)
		settle(n, r, false)
		if r.Outcome != TakenBack || r.Generation != 2 || r.Plan == nil || r.Plan.Way != Boot || !strings.Contains(strings.Join(r.Remarks, "; "), "at the next boot") {
			t.Errorf("the way back is staged: %+v", r)
		}

		n, r = begin(t, time.Hour)
		if _, err := n.command(Request{Kind: Detach, Modules: []string{"app"}}); err != nil {
			t.Fatal(err)
		}
		forget(n)
		settle(n, r, true)
		if r.Outcome != WentLive || r.Generation != 3 || strings.Contains(strings.Join(r.Remarks, "; "), "went back") {
			t.Errorf("somebody confirmed it, and changed something else: %+v", r)
		}

		n, r = begin(t, time.Hour)
		if _, err := n.command(Request{Kind: Rollback, Generation: 1}); err != nil {
			t.Fatal(err)
		}
		forget(n)
		settle(n, r, true)
		if r.Outcome != TakenBack || r.Generation != n.facts || !strings.Contains(strings.Join(r.Remarks, "; "), "somebody else went back from it") {
			t.Errorf("somebody went back: %+v", r)
		}
	}
}

// TestAnswerOfAnotherWindow: an answer confirms the window that it was asked in, and no later one.
func TestAnswerOfAnotherWindow(t *testing.T) {
	n := ready(t)
	detach := Request{Kind: Detach, Modules: []string{"site"}, Confirm: time.Hour}
	if _, err := n.do(detach); err != nil {
		t.Fatal(err)
	}
	asked, _, err := Waiting(n.run)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.command(Request{Kind: Rollback}); err != nil {
		t.Fatal(err)
	}
	again := detach
	again.Retry = true
	later, err := n.do(again)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := n.changer().Confirmed(asked); ok || err != nil {
		t.Errorf("%t, %v", ok, err)
	}
	now, waits, err := Waiting(n.run)
	if !waits || err != nil || now.Generation != later.Generation {
		t.Errorf("generation %d waits: %t, %v", now.Generation, waits, err)
	}
	if now.Generation != asked.Generation {
		t.Errorf("it is another generation: %d, not %d", now.Generation, asked.Generation)
	}
}

// TestStepsOfTheWayBack that fail are told to whoever waits, to the next command, and to the platform.
func TestStepsOfTheWayBack(t *testing.T) {
	failed := []string{"run ldconfig: exit code 1"}
	begin := func() (*node, *Result) {
		n := ready(t)
		r, err := n.do(Request{Kind: Detach, Modules: []string{"site"}, Confirm: time.Nanosecond})
		if err != nil {
			t.Fatal(err)
		}
		n.system.failed = failed
		return n, r
	}
	told := func(n *node, r *Result, who string) {
		t.Helper()
		if last, _, err := ReadLast(n.run); err != nil || !slices.Equal(last.Undone, failed) || !slices.Equal(r.Undone, failed) {
			t.Errorf("%s is told %q, and the platform %q, %v", who, r.Undone, last.Undone, err)
		}
	}
	n, r := begin()
	n.down = errSilent
	n.settle(r)
	told(n, r, "who waits")

	n, r = begin()
	e, err := n.changer().FinishEarlier(t.Context())
	if err != nil || !slices.Equal(e.Undone, failed) {
		t.Errorf("the service: %+v, %v", e, err)
	}
	n.down = errSilent
	n.settle(r)
	told(n, r, "who waits for another")

	n, _ = begin()
	c := n.changer()
	if _, err := c.Clear(t.Context(), Request{Kind: Detach, Modules: []string{"app"}}); err != nil {
		t.Fatal(err)
	}
	n.system.failed = nil
	next, err := c.Do(t.Context(), Request{Kind: Detach, Modules: []string{"app"}})
	if err != nil {
		t.Fatal(err)
	}
	told(n, next, "the next command")

	n, _ = begin()
	next, err = n.command(Request{Kind: Rollback})
	if err != nil {
		t.Fatal(err)
	}
	told(n, next, "a rollback")
}

// TestDamagedRecordOfAWindow: it keeps nobody from changing anything.
func TestDamagedRecordOfAWindow(t *testing.T) {
	n := ready(t)
	r, err := n.do(Request{Kind: Detach, Modules: []string{"site"}, Confirm: time.Hour})
	if err == nil {
		err = os.WriteFile(filepath.Join(n.run, ConfirmName), []byte(`{"generation":`), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if e, err := n.changer().Clear(t.Context(), Request{Kind: Update, DryRun: true}); err != nil || len(e.Said) != 1 {
		t.Errorf("a dry run: %+v, %v", e, err)
	}
	copied := *r
	n.settle(&copied)
	if copied.Outcome != WentLive || !strings.Contains(strings.Join(copied.Remarks, "; "), "is damaged, and is removed: generation 3 stays") {
		t.Errorf("%+v", copied)
	}
	if _, err := n.command(Request{Kind: Detach, Modules: []string{"app"}}); err != nil {
		t.Error(err)
	}
}
