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

// TestHeldUp: what is staged only because of something in the running system goes live with the next word, once that is gone; what is
// staged for any other reason stays so.
func TestHeldUp(t *testing.T) {
	const lock = "a process holds a lock"
	prepare := func(t *testing.T, r Request) (n *node, attach Request) {
		n = three(t)
		tool := n.publish("tool", "1", map[string]string{"usr/tool": long("tool")}, n.key)
		attach = Request{Kind: Attach, Modules: []string{tool.Repository + "@" + tool.Digest}}
		n.system.obstacles = []string{lock}
		r.Kind, r.Modules = attach.Kind, attach.Modules
		if got := n.must(r); got.Outcome != Staged {
			t.Fatalf("%+v", got)
		}
		if again := n.must(attach); again.Outcome != Staged && again.Outcome != AlreadyStaged || n.pointer(store.Staged) != 2 {
			t.Errorf("it is still there: %+v", again)
		}
		n.system.obstacles = nil
		return n, attach
	}
	t.Run("the same again", func(t *testing.T) {
		n, attach := prepare(t, Request{})
		attach.DryRun = true
		if r := n.must(attach); r.Outcome != WouldGoLive {
			t.Errorf("%+v", r)
		}
		attach.DryRun = false
		r := n.must(attach)
		if r.Outcome != WentLive || len(r.Remarks) != 0 || n.pointer(store.Staged) != 0 {
			t.Errorf("%+v, staged %d", r, n.pointer(store.Staged))
		}
		n.is("the same again", 2, "app 1, base 1, site 1, tool 1")
	})
	t.Run("something else", func(t *testing.T) {
		n, _ := prepare(t, Request{})
		r := n.must(Request{Kind: Detach, Modules: []string{"site"}})
		if r.Outcome != WentLive || len(r.Remarks) != 0 || changes(r) != "added tool 1, removed site 1" {
			t.Errorf("%+v", r)
		}
		n.is("something else", 3, "app 1, base 1, tool 1")
	})
	t.Run("staged on purpose", func(t *testing.T) {
		n, attach := prepare(t, Request{Stage: true})
		if r := n.must(attach); r.Outcome != AlreadyStaged {
			t.Errorf("%+v", r)
		}
	})
	t.Run("staged on purpose since", func(t *testing.T) {
		n, attach := prepare(t, Request{})
		if r := n.must(Request{Kind: Detach, Modules: []string{"site"}, Stage: true}); r.Outcome != Staged {
			t.Fatalf("%+v", r)
		}
		if r := n.must(attach); r.Outcome != AlreadyStaged {
			t.Errorf("%+v", r)
		}
	})
}

// TestMarkOfNothing: what a power cut left of a going back that came to nothing counts neither while what ran goes on, nor when the
// platform assigns that again after something else.
func TestMarkOfNothing(t *testing.T) {
	n := ready(t)
	n.stepping(func(op string) error {
		if strings.HasPrefix(op, "live:") {
			panic(killed(op))
		}
		return nil
	})
	if at, err := n.dies(n.hook, Request{Kind: Rollback, Generation: 1}); at == "" || err != nil {
		t.Fatal(at, err)
	}
	n.stepping(nil)
	if lefts, err := n.store.Lefts(); err != nil || len(lefts) != 1 || lefts[0].Generation != 2 || lefts[0].For != 3 {
		t.Fatalf("%+v, %v", lefts, err)
	}
	n.run, n.system = t.TempDir(), &fakeSystem{runs: 2}
	two, err := n.store.Generation(2)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string) {
		t.Helper()
		in, err := trial.Read(n.store)
		if of, why := trial.Refused(in, two.Modules); of != 0 || err != nil {
			t.Errorf("%s: because of %d, %s, %v", what, of, why, err)
		}
	}
	refused("the next boot")
	n.must(Request{Kind: Detach, Modules: []string{"site"}})
	refused("after another change")
	n.module("app", "1", map[string]string{"usr/app": long("app"), "etc/shared": long("app")})
	if r := n.must(Request{Kind: Attach, Modules: []string{"site"}}); r.Outcome != WentLive {
		t.Errorf("%+v", r)
	}
	n.module("base", "1", map[string]string{"usr/base": long("base"), "etc/shared": long("base")})
	n.must(Request{Kind: Update, AllowDowngrade: true})
	if current := n.pointer(store.Current); current != 3 && current != 1 {
		t.Logf("current is %d", current)
	}
	n.module("base", "2", map[string]string{"usr/base": long("base2")})
	if r := n.must(Request{Kind: Update}); r.Outcome != WentLive {
		t.Errorf("assigned again after what it was left for: %+v", r)
	}
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

// TestARollbackOutlastsAttaching: what is attached and detached after a rollback, live or staged, doesn't have the next update undo it.
func TestARollbackOutlastsAttaching(t *testing.T) {
	for name, stage := range map[string]bool{"live": false, "staged": true} {
		t.Run(name, func(t *testing.T) {
			n := ready(t)
			n.module("app", "1", map[string]string{"usr/app": long("app"), "etc/shared": long("app")}) // 2 is assigned
			tool := n.publish("tool", "1", map[string]string{"usr/tool": long("tool")}, n.key)
			n.must(Request{Kind: Rollback, Generation: 1, Stage: stage})
			n.must(Request{Kind: Attach, Modules: []string{tool.Repository + "@" + tool.Digest}})
			n.must(Request{Kind: Detach, Modules: []string{"site"}})
			current, staged := n.pointer(store.Current), n.pointer(store.Staged)
			if _, err := n.do(Request{Kind: Update}); fault.AreaOf(err) != fault.Policy || !strings.Contains(err.Error(), "somebody went back from it") {
				t.Errorf("an update: %v", err)
			}
			if c, s := n.pointer(store.Current), n.pointer(store.Staged); c != current || s != staged {
				t.Errorf("current %d, staged %d, and were %d, %d", c, s, current, staged)
			}
			// The platform assigns something else, or somebody says that it is meant.
			again := n.copy(t)
			again.must(Request{Kind: Update, Retry: true})
			if lefts, err := again.store.Lefts(); err != nil || len(lefts) != 0 {
				t.Errorf("said anew: %+v, %v", lefts, err)
			}
			n.module("app", "2", map[string]string{"usr/app": long("app2")})
			if r := n.must(Request{Kind: Update}); r.Outcome != WentLive {
				t.Errorf("something else: %+v", r)
			}
		})
	}
}

// TestWhatWasSaidMeanwhile, between the look at the records and the first of the change's own, isn't taken back with that.
func TestWhatWasSaidMeanwhile(t *testing.T) {
	n := ready(t)
	failed(n)
	said := store.Left{Generation: 1, For: 2, At: time.Unix(1, 0).UTC()}
	n.stepping(func(op string) error {
		if strings.HasPrefix(op, "pointer-current:") {
			return errors.New("no space left")
		}
		return nil
	})
	n.system.examining = func() error { return n.store.PutLeft(said) }
	if _, err := n.do(Request{Kind: Update, Retry: true}); err == nil {
		t.Fatal("it went live")
	}
	if lefts, err := n.store.Lefts(); err != nil || len(lefts) != 1 || lefts[0] != said {
		t.Errorf("%+v, %v", lefts, err)
	}
}

// TestTakenBackByAnotherAgent: the way back from what wasn't confirmed may make another root, under another number. A kill once that
// is current leaves the generation marked as failed all the same.
func TestTakenBackByAnotherAgent(t *testing.T) {
	n := ready(t)
	one, err := n.store.Generation(1)
	if err != nil {
		t.Fatal(err)
	}
	two, err := n.store.Generation(2)
	if err != nil {
		t.Fatal(err)
	}
	two.RootDigest = one.RootDigest // as the agent of then had composed it
	number, err := n.store.PutGeneration(two, nil)
	if err == nil {
		err = n.store.Promote(number)
	}
	if err != nil {
		t.Fatal(err)
	}
	n.facts, n.system.runs = number, number
	r := n.must(Request{Kind: Detach, Modules: []string{"site"}, Confirm: time.Nanosecond})
	set := false
	n.stepping(func(op string) error {
		if set {
			panic(killed(op))
		}
		set = strings.HasPrefix(op, "pointer-current:") && n.pointer(store.Current) != r.Generation
		return nil
	})
	func() {
		defer func() {
			if _, ok := recover().(killed); !ok {
				t.Error("it wasn't killed")
			}
		}()
		_, err := n.changer(func(c *Config) { c.Hook = n.hook }).TakeBack(t.Context())
		t.Errorf("it came to its end: %v", err)
	}()
	n.stepping(nil)
	if current := n.pointer(store.Current); current == number || current == r.Generation {
		t.Fatalf("current is %d", current)
	}
	if _, err := n.changer().FinishEarlier(t.Context()); err != nil {
		t.Fatal(err)
	}
	if tr, err := n.store.Trial(r.Generation); err != nil || !strings.Contains(tr.Failed, "the platform wasn't reached in time") {
		t.Errorf("%+v, %v", tr, err)
	}
	if _, waits, err := Waiting(n.run); waits || err != nil {
		t.Errorf("it waits %t, %v", waits, err)
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
