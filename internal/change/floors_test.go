package change

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/store"
)

// written is what floors.json says of a module, as text; "" where there is no such file.
func (w *world) written() string {
	w.t.Helper()
	data, err := os.ReadFile(filepath.Join(w.store.Path(), "floors.json"))
	if err != nil && !os.IsNotExist(err) {
		w.t.Fatal(err)
	}
	return string(data)
}

// TestFloorsRiseOnceConfirmed: a version that is taken back again keeps nobody from its repair on the older branch.
func TestFloorsRiseOnceConfirmed(t *testing.T) {
	n := three(t)
	n.must(Request{Kind: Update, Retry: true})
	n.module("app", "2.7", map[string]string{"usr/app": long("two")})
	c := n.changer()
	r, err := c.Do(t.Context(), Request{Kind: Update, Confirm: time.Hour})
	if err != nil || r.Outcome != WentLive {
		t.Fatal(r, err)
	}
	if text := n.written(); strings.Contains(text, `"2.7"`) {
		t.Errorf("before it is confirmed: %s", text)
	}
	if ok, err := answered(c); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if text := n.written(); !strings.Contains(text, `"2.7"`) {
		t.Errorf("confirmed: %s", text)
	}

	n.module("app", "3.1", map[string]string{"usr/app": long("three")})
	n.down = nil
	if r, err = n.changer().Do(t.Context(), Request{Kind: Update, Confirm: time.Nanosecond}); err != nil || r.Outcome != WentLive {
		t.Fatal(r, err)
	}
	if _, err := n.changer().TakeBack(t.Context()); err != nil {
		t.Fatal(err)
	}
	if floors, err := n.store.Floors(); err != nil || floors["app"].Version != "2.7" || strings.Contains(n.written(), `"3.1"`) {
		t.Errorf("taken back: %+v, %v, %s", floors, err, n.written())
	}
}

// TestDamagedFloors: what takes away, or goes back, needs none; what brings something in does.
func TestDamagedFloors(t *testing.T) {
	n := three(t)
	if err := os.WriteFile(filepath.Join(n.store.Path(), "floors.json"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := n.must(Request{Kind: Update}); r.Outcome != InStep {
		t.Errorf("what runs: %+v", r)
	}
	if r := n.must(Request{Kind: Detach, Modules: []string{"site"}}); r.Outcome != WentLive {
		t.Errorf("detach: %+v", r)
	}
	if r := n.must(Request{Kind: Rollback, Generation: 1}); r.Outcome != WentLive {
		t.Errorf("rollback: %+v", r)
	}
	n.down = fault.New(fault.Retry, fault.Platform, "", "no answer")
	if r, err := n.do(Request{Kind: Detach, Modules: []string{"site"}, Confirm: time.Nanosecond}); err != nil || r.Outcome != WentLive {
		t.Fatal(r, err)
	}
	if r, err := n.changer().TakeBack(t.Context()); err != nil || r == nil {
		t.Errorf("taken back: %+v, %v", r, err)
	}
	n.down = nil
	n.module("app", "2", map[string]string{"usr/app": long("two")})
	n.module("tool", "1", map[string]string{"usr/tool": long("tool")})
	r, err := n.do(Request{Kind: Update})
	if err != nil || r.Outcome != InStep || len(r.Failed) != 2 || !strings.Contains(r.Failed[0].Reason, "floors.json is damaged") || r.Failed[0].Kept != "1" {
		t.Errorf("an update: %+v, %v", r, err)
	}
	if _, err := n.do(Request{Kind: Attach, Modules: []string{"tool"}}); fault.KindOf(err) != fault.Broken || !strings.Contains(err.Error(), "floors.json is damaged") {
		t.Errorf("attach: %v", err)
	}
	if r := n.must(Request{Kind: Update, AllowDowngrade: true, Confirm: time.Hour}); r.Outcome != WentLive || len(r.Failed) > 0 {
		t.Errorf("by a person's word: %+v", r)
	}
	if ok, err := answered(n.changer()); !ok || err != nil {
		t.Errorf("confirmed: %t, %v", ok, err)
	}
}

// TestADowngradeThatIsStagedStays: the next update, which nobody allows anything, doesn't take it for a refusal; another build of that
// version is one.
func TestADowngradeThatIsStagedStays(t *testing.T) {
	w := newWorld(t)
	w.module("base", "1", map[string]string{"usr/a": long("a")})
	old := w.publish("app", "1", map[string]string{"usr/b": long("b")}, w.key)
	w.module("app", "2", map[string]string{"usr/b": long("b2")})
	first := w.boot()
	if err := w.store.RaiseFloors(first, time.Now()); err != nil {
		t.Fatal(err)
	}
	w.assign(old)
	if r := w.update(Request{Kind: Update}); r.Outcome != InStep || len(r.Failed) != 1 {
		t.Errorf("not allowed: %+v", r)
	}
	r := w.update(Request{Kind: Update, AllowDowngrade: true})
	if r.Outcome != Staged {
		t.Fatalf("%+v", r)
	}
	if again := w.update(Request{Kind: Update}); again.Outcome != AlreadyStaged || again.Generation != r.Generation || w.pointer(store.Staged) != r.Generation {
		t.Errorf("again: %+v", again)
	}
	w.module("app", "1", map[string]string{"usr/b": long("another build")})
	if r := w.update(Request{Kind: Update}); len(r.Failed) != 1 || !strings.Contains(r.Failed[0].Reason, "is older than 2") {
		t.Errorf("another build of it: %+v", r)
	}
}
