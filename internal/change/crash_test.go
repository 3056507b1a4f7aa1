package change

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/change/desired"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
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
	n.system.hook = hook
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

// requests are changes of a node that runs three modules and is assigned a new version of one.
var requests = map[string]Request{
	"update":   {Kind: Update},
	"detach":   {Kind: Detach, Modules: []string{"site"}},
	"rollback": {Kind: Rollback, Generation: 1},
	"confirm":  {Kind: Detach, Modules: []string{"site"}, Confirm: time.Hour},
	"staged":   {Kind: Detach, Modules: []string{"site"}, Stage: true},
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

// TestKilledAtEachStep kills a change at each of its labelled steps, in turn. The next one who comes finds the old generation or the
// new one, whole: mounted, current, in the facts, and with the administrator's word that belongs to it.
func TestKilledAtEachStep(t *testing.T) {
	for name, request := range requests {
		t.Run(name, func(t *testing.T) {
			steps, forward, back := 0, 0, 0
			first := ready(t)
			for k := 0; ; k++ {
				n := first.copy(t)
				count := 0
				hook := func(op string) error {
					if count == k {
						panic(killed(op))
					}
					count++
					return nil
				}
				n.stepping(hook)
				at, err := n.dies(hook, request)
				if err != nil {
					t.Fatal(err)
				}
				if at == "" {
					break
				}
				steps++
				n.stepping(nil)
				if _, err := n.changer().Recover(t.Context()); err != nil {
					t.Fatalf("killed at %s: %v", at, err)
				}
				if n.whole(string(at), request) {
					forward++
				} else {
					back++
				}
			}
			if steps < 10 || back == 0 || request.Stage != (forward == 0) {
				t.Errorf("killed at %d steps: %d times the new one runs, %d times the old one", steps, forward, back)
			}
		})
	}
}

// whole checks that a node is wholly before a change or after it, and reports whether it is after.
func (n *node) whole(at string, r Request) bool {
	n.t.Helper()
	current := n.pointer(store.Current)
	if n.system.runs != current || n.facts != current || n.system.swap != 0 {
		n.t.Errorf("killed at %s: %d is mounted, the facts say %d, current is %d", at, n.system.runs, n.facts, current)
	}
	after := current != 2
	local, err := desired.ReadLocal(n.store.Path())
	if err != nil {
		n.t.Fatal(err)
	}
	// What is staged may have been said before it was staged: it is what the next update does.
	if said := slices.Contains(local.Detached, "site"); said != (after && r.Kind == Detach) && !r.Stage {
		n.t.Errorf("killed at %s: generation %d runs, and the administrator's word is %+v", at, current, local)
	}
	if after {
		if l, err := n.store.Live(current); err != nil || l.Generation == 0 {
			n.t.Errorf("killed at %s: generation %d counts as booted", at, current)
		}
	}
	_, waits, err := Waiting(n.run)
	if err != nil || waits != (after && r.Confirm > 0) {
		n.t.Errorf("killed at %s: generation %d runs, waits for confirmation: %t, %v", at, current, waits, err)
	}
	if Unfinished(n.run) {
		n.t.Errorf("killed at %s: it still isn't finished", at)
	}
	return after
}

// TestFailsAtEachStep has each labelled step fail, in turn, as on a full disk. What ran goes on, unless the new generation is the
// current one already.
func TestFailsAtEachStep(t *testing.T) {
	cause := errors.New("no space left")
	for name, request := range requests {
		t.Run(name, func(t *testing.T) {
			first := ready(t)
			for k := 0; ; k++ {
				n := first.copy(t)
				count, failed := 0, ""
				hook := func(op string) error {
					if count++; count == k+1 {
						failed = op
						return fmt.Errorf("%s: %w", op, cause)
					}
					return nil
				}
				n.stepping(hook)
				_, err := n.dies(hook, request)
				if failed == "" {
					break
				}
				n.stepping(nil)
				if _, err := n.changer().Recover(t.Context()); err != nil {
					t.Fatalf("%s failed: %v", failed, err)
				}
				if after := n.whole(failed, request); after && err != nil && request.Kind != Rollback {
					t.Errorf("%s failed, and so did the change: %v; but the new generation runs", failed, err)
				}
			}
		})
	}
}

// TestConfirm: a change that nobody confirms is taken back, by whoever comes first; one that is confirmed stays.
func TestConfirm(t *testing.T) {
	n := ready(t)
	detach := Request{Kind: Detach, Modules: []string{"site"}, Confirm: time.Hour}
	c := n.changer()
	r, err := c.Do(t.Context(), detach)
	if err != nil || r.ConfirmBy.IsZero() {
		t.Fatal(r, err)
	}
	if err := c.AwaitConfirmation(t.Context(), r); err != nil || r.Outcome != WentLive || !r.ConfirmBy.IsZero() {
		t.Errorf("the platform answers: %+v, %v", r, err)
	}
	n.is("confirmed", 3, "app 1, base 2")
	n.must(Request{Kind: Attach, Modules: []string{"site"}})
	now := n.facts

	n.down = fault.New(fault.Retry, fault.Platform, "", "no answer")
	detach.Confirm = time.Nanosecond
	c = n.changer()
	if r, err = c.Do(t.Context(), detach); err != nil || r.Outcome != WentLive {
		t.Fatal(r, err)
	}
	if p, ok, err := Waiting(n.run); !ok || err != nil || p.Generation != r.Generation || p.Back != now {
		t.Errorf("%+v, %t, %v", p, ok, err)
	}
	// Its process is killed now; another one comes.
	c = n.changer()
	result := &Result{}
	if err := c.AwaitConfirmation(t.Context(), result); err != nil || result.Outcome != TakenBack || result.Generation != now {
		t.Errorf("nobody answers: %+v, %v", result, err)
	}
	n.is("taken back", now, "app 1, base 2, site 1")
	if l, err := desired.ReadLocal(n.store.Path()); err != nil || len(l.Detached) != 0 {
		t.Errorf("%+v, %v", l, err)
	}
	if tr, err := n.store.Trial(r.Generation); err != nil || tr.Failed == "" {
		t.Errorf("%+v, %v", tr, err)
	}
	if r, err := n.changer().TakeBack(context.Background()); r != nil || err != nil {
		t.Error("once more", r, err)
	}
}
