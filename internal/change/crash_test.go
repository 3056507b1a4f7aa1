package change

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/change/desired"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/store"
)

// killed is what a process says that is killed at a labelled step.
type killed string

// stepping makes a node whose every labelled step goes through hook: those on the disk, and those of the mounts.
func (n *node) stepping(hook durable.Hook) {
	n.t.Helper()
	path := n.store.Path()
	if err := n.store.Close(); err != nil {
		n.t.Fatal(err)
	}
	var err error
	if n.store, err = store.Open(path, store.Options{Hook: hook}); err != nil {
		n.t.Fatal(err)
	}
	n.system.hook, n.hook = hook, hook
}

// dies does what is asked for, and returns the step that it was killed at, "" where it came to its end.
func (n *node) dies(hook durable.Hook, r Request) (at killed, err error) {
	defer func() {
		if k, ok := recover().(killed); ok {
			at, err = k, nil
		}
	}()
	_, err = n.changer(func(c *Config) { c.Hook = hook }).Do(n.t.Context(), r)
	return "", err
}

// crashing are changes of a node that runs three modules, came there from other versions, and is assigned a new version of one.
var crashing = map[string]struct {
	// prepare brings the node there; nil for a node that is.
	prepare func(n *node)
	request Request
}{
	"update":                             {nil, Request{Kind: Update}},
	"detach":                             {nil, Request{Kind: Detach, Modules: []string{"site"}}},
	"rollback":                           {nil, Request{Kind: Rollback, Generation: 1}},
	"confirm":                            {nil, Request{Kind: Detach, Modules: []string{"site"}, Confirm: time.Hour}},
	"staged":                             {nil, Request{Kind: Detach, Modules: []string{"site"}, Stage: true}},
	"staged rollback":                    {nil, Request{Kind: Rollback, Generation: 1, Stage: true}},
	"rollback of a rollback":             {func(n *node) { n.must(Request{Kind: Rollback, Generation: 1}) }, Request{Kind: Rollback, Generation: 2}},
	"staged rollback of a rollback":      {func(n *node) { n.must(Request{Kind: Rollback, Generation: 1}) }, Request{Kind: Rollback, Generation: 2, Stage: true}},
	"rollback instead of what is staged": {stageAnother, Request{Kind: Rollback, Generation: 1}},
	"update instead of what is staged":   {stageAnother, Request{Kind: Update}},
	"withdrawn": {func(n *node) {
		n.must(Request{Kind: Update, Stage: true})
		n.module("app", "1", map[string]string{"usr/app": long("app"), "etc/shared": long("app")})
	}, Request{Kind: Update, AllowDowngrade: true}},
	"once more what failed":         {failed, Request{Kind: Update, Retry: true}},
	"once more what failed, staged": {failed, Request{Kind: Update, Retry: true, Stage: true}},
}

// stageAnother stages a generation that nobody wants by the time of the change.
func stageAnother(n *node) {
	app := n.list.Modules[slices.IndexFunc(n.list.Modules, func(m nodeapi.Module) bool { return m.Name == "app" })]
	n.module("app", "1.5", map[string]string{"usr/app": long("app1.5")})
	n.must(Request{Kind: Update, Stage: true})
	n.assign(app)
}

// failed has what is assigned have failed its trial.
func failed(n *node) {
	r := n.must(Request{Kind: Update, Stage: true})
	err := n.store.SetPointer(store.Staged, 0)
	if err == nil {
		err = n.store.PutTrial(store.Trial{Generation: r.Generation, Attempts: 1, Limit: 3, Failed: "x", FailedAt: time.Unix(1, 0)})
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

// ready returns such a node: it runs generation 2, and was at 1 before.
func ready(t *testing.T) *node {
	t.Helper()
	n := three(t)
	n.module("base", "2", map[string]string{"usr/base": long("base2")})
	n.must(Request{Kind: Update})
	n.module("app", "2", map[string]string{"usr/app": long("app2")})
	// It is pulled before: other goroutines do that, and package store has tests of their deaths.
	if _, err := n.reconciler().Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	return n
}

// inMemory returns a directory in which a sync costs nothing, where there is one.
func inMemory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "change")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// copy returns a node that is like this one, with a disk of its own.
func (n *node) copy(t *testing.T) *node {
	t.Helper()
	dir := filepath.Join(inMemory(t), "store")
	if err := os.CopyFS(dir, os.DirFS(n.store.Path())); err != nil {
		t.Fatal(err)
	}
	w := *n.world
	w.t = t
	var err error
	if w.store, err = store.Open(dir, store.Options{}); err != nil {
		t.Fatal(err)
	}
	c := &node{world: &w, system: &fakeSystem{runs: n.system.runs}, facts: n.facts, run: inMemory(t)}
	t.Cleanup(func() { c.store.Close() })
	return c
}

// said is everything that tells, now or later, what runs: the mounts, the facts, the pointers, the administrator's word, the side
// records of generations, and what waits for confirmation.
func (n *node) said() string {
	n.t.Helper()
	var text strings.Builder
	fmt.Fprintf(&text, "mounted %d, swap to %d, facts %d, current %d, previous %d, staged %d\n", n.system.runs, n.system.swap, n.facts,
		n.pointer(store.Current), n.pointer(store.Previous), n.pointer(store.Staged))
	local, localErr := desired.ReadLocal(n.store.Path())
	lefts, leftErr := n.store.Lefts()
	trials, trialErr := n.store.Trials()
	lives, liveErr := n.store.Lives()
	waiting, waits, waitErr := Waiting(n.run)
	if err := errors.Join(localErr, leftErr, trialErr, liveErr, waitErr); err != nil {
		n.t.Fatal(err)
	}
	fmt.Fprintf(&text, "word %+v\n", local)
	for _, l := range lefts {
		fmt.Fprintf(&text, "%d left for %d\n", l.Generation, l.For)
	}
	for _, tr := range trials {
		fmt.Fprintf(&text, "%d tried %d of %d %s, good %t\n", tr.Generation, tr.Attempts, tr.Limit, tr.Failed, !tr.Good.IsZero())
	}
	for _, l := range lives {
		fmt.Fprintf(&text, "%d live after %d\n", l.Generation, l.From)
	}
	fmt.Fprintf(&text, "waits %t for %d, else %d; unfinished %t\n", waits, waiting.Generation, waiting.Back, Unfinished(n.run))
	return text.String()
}

// crash has a change go through each of its labelled steps, in turn: at step k, hook(k) is asked. end is called when somebody else
// has looked after what was left, with what both ends of the change look like.
func crash(t *testing.T, name string, hook func(op string) error, end func(n *node, at, before, after string, err error)) {
	t.Helper()
	c := crashing[name]
	first := ready(t)
	if c.prepare != nil {
		c.prepare(first)
	}
	before, whole := first.said(), first.copy(t)
	if _, err := whole.do(c.request); err != nil {
		t.Fatal(err)
	}
	after := whole.said()
	if before == after {
		t.Fatal("the change changes nothing")
	}
	for k := 0; ; k++ {
		n := first.copy(t)
		count, at := 0, ""
		n.stepping(func(op string) error {
			if count++; count == k+1 {
				at = op
				return hook(op)
			}
			return nil
		})
		_, err := n.dies(n.hook, c.request)
		if at == "" {
			return
		}
		n.stepping(nil)
		if _, err := n.changer().Recover(t.Context()); err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		end(n, at, before, after, err)
	}
}

// TestKilledAtEachStep kills a change at each of its labelled steps, in turn. The next one who comes finds the old generation or the
// new one, whole: mounted, current, in the facts, and with everything that was said with it, or before it.
func TestKilledAtEachStep(t *testing.T) {
	for name := range crashing {
		t.Run(name, func(t *testing.T) {
			forward, back := 0, 0
			crash(t, name, func(op string) error { panic(killed(op)) }, func(n *node, at, before, after string, _ error) {
				switch is := n.said(); is {
				case after:
					forward++
				case before:
					back++
				default:
					t.Errorf("killed at %s:\n%s\nbefore:\n%s\nafter:\n%s", at, is, before, after)
				}
			})
			if forward == 0 || back == 0 {
				t.Errorf("%d times the new one runs, %d times the old one", forward, back)
			}
		})
	}
}

// TestFailsAtEachStep has each labelled step fail, in turn, as on a full disk. What was said before counts, or, where the command says
// that all is well, what it came to.
func TestFailsAtEachStep(t *testing.T) {
	cause := errors.New("no space left")
	for name := range crashing {
		t.Run(name, func(t *testing.T) {
			crash(t, name, func(op string) error { return fmt.Errorf("%s: %w", op, cause) }, func(n *node, at, before, after string, err error) {
				want := after
				if err != nil {
					want = before
				}
				if is := n.said(); is != want {
					t.Errorf("%s failed, and the command says %v:\n%s\nwant:\n%s", at, err, is, want)
				}
			})
		})
	}
}
