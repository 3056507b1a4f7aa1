package change

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/store"
)

// staging does what is asked for on a machine that nothing can go live on.
func (w *world) staging(r Request) (*Result, error) {
	c := New(Config{Store: w.store, Reconciler: w.reconciler(), Running: Running{NotLive: "this isn't the machine"}})
	return c.Do(w.t.Context(), r)
}

func (w *world) update(r Request) *Result {
	w.t.Helper()
	result, err := w.staging(r)
	if err != nil {
		w.t.Fatal(err)
	}
	return result
}

// disk is everything of the store that an update may change, as text.
func (w *world) disk() string {
	return (&node{world: w, run: w.t.TempDir()}).state()
}

// TestStagedUpdates goes through the life of a node: an update that is staged, the same again, one that is
// withdrawn, one that replaces another.
func TestStagedUpdates(t *testing.T) {
	w := newWorld(t)
	w.module("base", "1", map[string]string{"usr/a": long("a")})
	old := w.module("app", "1", map[string]string{"usr/b": long("b")})
	w.module("gone", "1", map[string]string{"usr/c": long("c")})
	first := w.boot()
	if u := w.update(Request{Kind: Update}); u.Outcome != InStep || len(u.Changes) != 0 || u.Generation != first.Number {
		t.Errorf("in step: %+v", u)
	}

	w.module("app", "2", map[string]string{"usr/b": long("b2")})
	w.module("new", "1", map[string]string{"usr/d": long("d")})
	w.list.Modules = append(w.list.Modules[:1], w.list.Modules[2:]...) // without gone
	want := "changed app 1 2, added new 1, removed gone 1"
	before := w.disk()
	dry := w.update(Request{Kind: Update, DryRun: true})
	if dry.Outcome != WouldStage || changes(dry) != want || dry.Changes[0].Size == 0 || dry.Generation != 0 {
		t.Errorf("dry run: %+v", dry)
	}
	if w.disk() != before {
		t.Error("a dry run changed something")
	}
	u := w.update(Request{Kind: Update})
	if u.Outcome != Staged || changes(u) != want || u.From != first.Number || u.FromRootDigest != first.RootDigest || u.RootDigest == first.RootDigest ||
		u.Pulled.Modules != 2 || u.Pulled.Bytes == 0 || w.pointer(store.Staged) != u.Generation || w.pointer(store.Current) != first.Number {
		t.Errorf("update: %+v, staged %d", u, w.pointer(store.Staged))
	}
	if again := w.update(Request{Kind: Update}); again.Outcome != AlreadyStaged || again.Generation != u.Generation || changes(again) != want || again.Pulled.Modules != 0 {
		t.Errorf("again: %+v", again)
	}

	// Something else is wanted before the machine restarted.
	w.assign(old)
	third := w.update(Request{Kind: Update})
	if third.Outcome != Staged || changes(third) != "added new 1, removed gone 1" || third.Generation == u.Generation || w.pointer(store.Staged) != third.Generation {
		t.Errorf("another: %+v", third)
	}

	// What runs is wanted again.
	w.list.Modules = nil
	w.module("base", "1", map[string]string{"usr/a": long("a")})
	w.assign(old)
	w.module("gone", "1", map[string]string{"usr/c": long("c")})
	if u := w.update(Request{Kind: Update, DryRun: true}); u.Outcome != WouldWithdraw || w.pointer(store.Staged) != third.Generation {
		t.Errorf("dry run: %+v", u)
	}
	if u := w.update(Request{Kind: Update}); u.Outcome != Withdrawn || w.pointer(store.Staged) != 0 || w.pointer(store.Current) != first.Number {
		t.Errorf("withdrawn: %+v", u)
	}
}

// TestUpdateKeepsWhatRuns: a module that is refused stays as it is, and keeps no other back.
func TestUpdateKeepsWhatRuns(t *testing.T) {
	for name, spoil := range map[string]func(w *world){
		"unsigned": func(w *world) { w.assign(w.publish("app", "2", map[string]string{"usr/b": long("b2")}, nil)) },
		"not what was signed": func(w *world) {
			m := w.module("app", "2", map[string]string{"usr/b": long("b2")})
			w.spoilLayer(m.Digest)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.module("base", "1", map[string]string{"usr/a": long("a")})
			w.module("app", "1", map[string]string{"usr/b": long("b")})
			first := w.boot()
			spoil(w)
			u := w.update(Request{Kind: Update})
			if u.Outcome != InStep || len(u.Changes) != 0 || len(u.Failed) != 1 || u.Failed[0].Kept != "1" || u.Failed[0].Version != "2" || u.Generation != first.Number {
				t.Errorf("alone: %+v", u)
			}
			w.module("base", "2", map[string]string{"usr/a": long("a2")})
			w.assign(w.publish("extra", "1", nil, nil))
			u = w.update(Request{Kind: Update})
			if u.Outcome != Staged || changes(u) != "changed base 1 2" || len(u.Failed) != 2 {
				t.Errorf("beside a good one: %+v", u)
			}
			g, err := w.store.Generation(u.Generation)
			if err != nil || len(g.Modules) != 2 {
				t.Errorf("generation %+v, %v", g, err)
			}
		})
	}
}

// spoilLayer flips a byte of the layer that only the image of a digest has.
func (w *world) spoilLayer(image string) {
	w.t.Helper()
	manifest, err := os.ReadFile(filepath.Join(w.at, "blobs", "sha256", strings.TrimPrefix(image, "sha256:")))
	if err != nil {
		w.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(manifest), `"layers":`)
	_, rest, _ = strings.Cut(rest, `"sha256:`)
	path := filepath.Join(w.at, "blobs", "sha256", rest[:64])
	text, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	if err := errors.Join(os.Remove(path), os.WriteFile(path, text, 0o600)); err != nil {
		w.t.Fatal(err)
	}
}

// TestUpdateStagesNothing where it can't know, or knows better.
func TestUpdateStagesNothing(t *testing.T) {
	w := newWorld(t)
	w.module("base", "1", map[string]string{"usr/a": long("a")})
	w.boot()
	w.down = fault.New(fault.Retry, fault.Platform, "wait", "no answer")
	if _, err := w.staging(Request{Kind: Update}); !errors.Is(err, w.down) {
		t.Errorf("an outage: %v", err)
	}
	w.down = nil
	w.module("base", "2", map[string]string{"usr/a": long("a2")})
	u := w.update(Request{Kind: Update})
	bad := store.Trial{Generation: u.Generation, Attempts: 1, Limit: 3, Failed: "nginx.service failed", FailedAt: time.Unix(1, 0)}
	if err := w.store.PutTrial(bad); err != nil {
		t.Fatal(err)
	}
	for _, o := range []Request{{Kind: Update}, {Kind: Update, DryRun: true}} {
		_, err := w.staging(o)
		if fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Policy || !strings.Contains(err.Error(), "nginx.service failed") || !strings.Contains(fault.HintOf(err), "--retry") {
			t.Errorf("what failed its trial, %+v: %v", o, err)
		}
	}
	if again := w.update(Request{Kind: Update, Retry: true}); again.Outcome != Staged || again.Generation != u.Generation {
		t.Errorf("once more: %+v", again)
	}
	if tr, err := w.store.Trial(u.Generation); err != nil || tr.Failed != "" {
		t.Errorf("trial %+v, %v", tr, err)
	}
	// Only bad modules, and nothing that runs.
	empty := newWorld(t)
	empty.assign(empty.publish("base", "1", nil, nil))
	_, err := empty.staging(Request{Kind: Update})
	if fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Verify || !strings.Contains(err.Error(), "the assigned module can't be used") {
		t.Errorf("nothing good: %v", err)
	}
	spoilt := newWorld(t)
	for _, name := range []string{"base", "app"} {
		spoilt.spoilLayer(spoilt.module(name, "1", map[string]string{"usr/a": long(name)}).Digest)
	}
	_, err = spoilt.staging(Request{Kind: Update})
	if fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Verify || !strings.Contains(err.Error(), "none of the 2 assigned modules") {
		t.Errorf("nothing that was signed: %v", err)
	}
}
