package change

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/aftercare"
	"github.com/powernode/powernode-agent/internal/change/desired"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/store"
)

// fakeSystem is a running system that goes from root to root in memory.
type fakeSystem struct {
	// runs is the generation whose root is mounted; swap is the one that is under way, 0 for none.
	runs, back, swap uint64
	root             mount.ID
	said             []string
	obstacles        []string
	swapErr          error
	// leaves is the journal of the mounts that stays where the swap fails.
	leaves string
	// hook sees each step, before and after the mounts are changed.
	hook func(string) error
	// broken are files whose units don't work, by the module that they come from.
	broken map[string]string
	// failed are steps that fail after a swap.
	failed []string
	// resumed are those that fail when somebody else goes on.
	resumed []string
}

func (f *fakeSystem) Examine(_ context.Context, s Step) (Findings, error) {
	return Findings{Obstacles: f.obstacles}, nil
}

func (f *fakeSystem) Swap(_ context.Context, s Step, _ Findings) ([]string, error) {
	if f.swapErr != nil {
		if f.leaves != "" {
			return nil, errors.Join(f.swapErr, os.WriteFile(f.leaves, []byte("{}"), 0o600))
		}
		return nil, f.swapErr
	}
	f.said = append(f.said, fmt.Sprintf("swap %d to %d", s.From.Number, s.To.Number))
	if err := f.step("swap:begin"); err != nil {
		return nil, err
	}
	f.back, f.swap = f.runs, s.To.Number
	if err := f.step("swap:half"); err != nil {
		f.swap = 0
		return nil, err
	}
	f.runs = s.To.Number
	if err := f.step("swap:done"); err != nil {
		f.runs, f.swap = f.back, 0
		return nil, err
	}
	return nil, nil
}

func (f *fakeSystem) step(name string) error {
	if f.hook == nil {
		return nil
	}
	return f.hook(name)
}

func (f *fakeSystem) After(_ context.Context, s Step, _ Findings) ([]UnitFailure, []string) {
	var failures []UnitFailure
	for file, module := range f.broken {
		if s.ToTree.Lookup(file) != nil {
			failures = append(failures, UnitFailure{Unit: filepath.Base(file), Module: module, Reason: "exit code 1"})
		}
	}
	return failures, f.failed
}

func (f *fakeSystem) Undo(context.Context, Step, Findings) ([]string, error) {
	f.said = append(f.said, fmt.Sprintf("undo %d", f.swap))
	f.runs, f.swap = f.back, 0
	return nil, nil
}

func (f *fakeSystem) Resume(context.Context, store.Generation, *aftercare.Plan) []string {
	return f.resumed
}

func (f *fakeSystem) Root() (mount.ID, error) { return f.root, nil }

func (f *fakeSystem) Finish(context.Context) ([]string, error) {
	if err := f.step("finish"); err != nil {
		return nil, err
	}
	f.swap = 0
	return nil, nil
}

func (f *fakeSystem) Recover(_ context.Context, current uint64) (Recovered, bool, error) {
	if f.swap == 0 {
		return Recovered{}, false, nil
	}
	r := Recovered{Generation: f.swap, Forward: current == f.swap}
	if f.runs = f.swap; !r.Forward {
		r.Generation, f.runs = f.back, f.back
	}
	f.swap = 0
	return r, true, nil
}

// node is a world's node that runs a generation.
type node struct {
	*world
	system *fakeSystem
	facts  uint64
	run    string
	// hook is what sees each labelled step.
	hook durable.Hook
}

func (w *world) runs() *node {
	w.t.Helper()
	g := w.boot()
	return &node{world: w, system: &fakeSystem{runs: g.Number}, facts: g.Number, run: w.t.TempDir()}
}

func (n *node) changer(change ...func(*Config)) *Changer {
	n.t.Helper()
	c := Config{
		Store: n.store, Reconciler: n.reconciler(), System: n.system, RunDir: n.run,
		Running: Running{Generation: n.facts, Live: func(g store.Generation) error {
			n.facts = g.Number
			return nil
		}},
		Wait: func(context.Context, time.Duration) {},
	}
	for _, f := range change {
		f(&c)
	}
	return New(c)
}

func (n *node) do(r Request) (*Result, error) { return n.changer().Do(n.t.Context(), r) }

func (n *node) must(r Request) *Result {
	n.t.Helper()
	result, err := n.do(r)
	if err != nil {
		n.t.Fatal(err)
	}
	return result
}

// is checks what runs and what the records say, and that nothing is left of a change.
func (n *node) is(what string, generation uint64, modules string) {
	n.t.Helper()
	g, err := n.store.Generation(generation)
	if err != nil {
		n.t.Fatal(err)
	}
	var have []string
	for _, m := range g.Modules {
		have = append(have, m.Name+" "+m.Version)
	}
	slices.Sort(have)
	if n.system.runs != generation || n.facts != generation || n.pointer(store.Current) != generation || strings.Join(have, ", ") != modules {
		n.t.Errorf("%s: %d is mounted, the facts say %d, current is %d, want %d with %s, has %v", what, n.system.runs, n.facts, n.pointer(store.Current), generation, modules, have)
	}
	left, err := os.ReadDir(n.run)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, e := range left {
		if e.Name() == LastName {
			continue
		}
		n.t.Errorf("%s: %s is left", what, e.Name())
	}
}

func (w *world) pointer(name store.PointerName) uint64 {
	w.t.Helper()
	n, err := w.store.Pointer(name)
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

func changes(r *Result) string {
	var list []string
	for _, c := range r.Changes {
		list = append(list, strings.Join(strings.Fields(c.Kind+" "+c.Name+" "+c.From+" "+c.To), " "))
	}
	return strings.Join(list, ", ")
}

// state is everything of the disk that a change may touch, as text.
func (n *node) state() string {
	n.t.Helper()
	var all strings.Builder
	for _, dir := range []string{n.store.Path(), n.run} {
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err == nil && !d.IsDir() {
				all.WriteString(path + " " + info.ModTime().String() + "\n")
			}
			return err
		})
		if err != nil {
			n.t.Fatal(err)
		}
	}
	return all.String()
}

func three(t *testing.T) *node {
	t.Helper()
	w := newWorld(t)
	for _, name := range []string{"base", "app", "site"} {
		w.module(name, "1", map[string]string{"usr/" + name: long(name), "etc/shared": long(name)})
	}
	return w.runs()
}

// TestLife goes through the life of a node: an update that goes live, a dry run, detach, attach, rollback.
func TestLife(t *testing.T) {
	n := three(t)
	if r := n.must(Request{Kind: Update}); r.Outcome != InStep || r.Generation != 1 || r.Plan != nil {
		t.Errorf("in step: %+v", r)
	}
	n.module("app", "2", map[string]string{"usr/app": long("app2"), "usr/new": long("new")})
	before := n.state()
	dry := n.must(Request{Kind: Update, DryRun: true})
	if dry.Outcome != WouldGoLive || changes(dry) != "changed app 1 2" || dry.Changes[0].Size == 0 || dry.Generation != 0 || dry.RootDigest.IsZero() ||
		dry.Plan.Files.Added != 1 || dry.Plan.Files.Changed == 0 || dry.Plan.PullBytes == 0 || len(dry.Plan.Contested) == 0 {
		t.Errorf("dry run: %+v, %+v", dry, dry.Plan)
	}
	if n.state() != before {
		t.Error("a dry run changed something")
	}
	r := n.must(Request{Kind: Update})
	if r.Outcome != WentLive || r.RootDigest != dry.RootDigest || r.Plan.Files.Counts != dry.Plan.Files.Counts || r.From != 1 {
		t.Errorf("live: %+v", r)
	}
	n.is("update", 2, "app 2, base 1, site 1")
	if l, err := n.store.Live(2); err != nil || l.From != 1 {
		t.Errorf("%+v, %v", l, err)
	}
	if r := n.must(Request{Kind: Detach, Modules: []string{"site"}}); r.Outcome != WentLive || changes(r) != "removed site 1" {
		t.Errorf("detach: %+v", r)
	}
	n.is("detach", 3, "app 2, base 1")
	if r := n.must(Request{Kind: Update}); r.Outcome != InStep || !slices.Equal(r.Detached, []string{"site"}) {
		t.Errorf("an update leaves it so: %+v", r)
	}
	if r := n.must(Request{Kind: Attach, Modules: []string{"id-site"}}); r.Outcome != WentLive || changes(r) != "added site 1" {
		t.Errorf("attach: %+v", r)
	}
	n.is("attach", 2, "app 2, base 1, site 1")

	n.down = fault.New(fault.Retry, fault.Platform, "", "no answer")
	n.must(Request{Kind: Detach, Modules: []string{"site"}})
	if r := n.must(Request{Kind: Attach, Modules: []string{"site"}}); r.Outcome != WentLive || len(r.Remarks) != 1 {
		t.Errorf("without the platform: %+v", r)
	}
	n.down = nil
	n.is("attach without the platform", 2, "app 2, base 1, site 1")

	if r := n.must(Request{Kind: Rollback}); r.Outcome != WentLive || changes(r) != "changed app 2 1" {
		t.Errorf("rollback: %+v", r)
	}
	n.is("rollback", 4, "app 1, base 1, site 1")
	if g, err := n.store.Generation(4); err != nil || g.Cause != "rollback to 1" {
		t.Errorf("%+v, %v", g, err)
	}
	if _, err := n.do(Request{Kind: Update}); fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), "somebody went back from it") {
		t.Errorf("an update doesn't undo a rollback: %v", err)
	}
	n.must(Request{Kind: Update, Retry: true})
	n.is("taken up again", 2, "app 2, base 1, site 1")
	if r := n.must(Request{Kind: Update}); r.Outcome != InStep {
		t.Errorf("%+v", r)
	}
}

// TestAttachByReference: what the platform doesn't assign runs by the word of the node's administrator, as long as the trust
// policy accepts it.
func TestAttachByReference(t *testing.T) {
	n := three(t)
	m := n.publish("tool", "1", map[string]string{"usr/tool": long("tool"), "usr/app": long("mine")}, n.key)
	r := n.must(Request{Kind: Attach, Modules: []string{m.Repository + "@" + m.Digest}})
	if r.Outcome != WentLive || changes(r) != "added tool 1" || r.Changes[0].Origin != reconcile.Here || len(r.Plan.Contested) == 0 || r.Plan.Contested[0].Winner != "app" || !r.Plan.Contested[0].Decided {
		t.Errorf("%+v", r)
	}
	n.module("base", "2", map[string]string{"usr/base": long("base2")})
	if r := n.must(Request{Kind: Update}); changes(r) != "changed base 1 2" {
		t.Errorf("update: %+v", r)
	}
	n.is("update", 3, "app 1, base 2, site 1, tool 1")
	if _, err := n.do(Request{Kind: Attach, Modules: []string{"nobody"}}); fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), "doesn't assign it") {
		t.Errorf("an unknown one: %v", err)
	}
	unsigned := n.publish("evil", "1", nil, nil)
	if _, err := n.do(Request{Kind: Attach, Modules: []string{unsigned.Repository + "@" + unsigned.Digest}}); fault.AreaOf(err) != fault.Verify {
		t.Errorf("an unsigned one: %v", err)
	}
	n.is("refused", 3, "app 1, base 2, site 1, tool 1")
	n.must(Request{Kind: Detach, Modules: []string{"tool"}})
	n.is("detached", 4, "app 1, base 2, site 1")
	if l, err := desired.ReadLocal(n.store.Path()); err != nil || !l.Equal(desired.Local{}) {
		t.Errorf("%+v, %v", l, err)
	}
}

// TestOneBadModule: whatever is wrong with one, the others go on, and it stays as it runs, or out.
func TestOneBadModule(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(n *node)
		want  string
		why   string
	}{
		"unsigned": {func(n *node) {
			n.assign(n.publish("app", "2", map[string]string{"usr/app": long("x")}, nil))
		}, "app 1, base 2, site 1", "signature"},
		"lower than it was": {func(n *node) {
			n.assign(n.publish("app", "0.9", map[string]string{"usr/app": long("x")}, n.key))
		}, "app 1, base 2, site 1", "older than 1"},
		"a protected path": {func(n *node) {
			n.module("app", "2", map[string]string{"usr/lib/powernode/modules/base/x": long("x")})
		}, "app 1, base 2, site 1", "protects"},
		"a new one with a protected path": {func(n *node) {
			n.module("new", "1", map[string]string{"usr/lib/powernode/modules/base/x": long("x")})
		}, "app 1, base 2, site 1", "protects"},
		"a unit that doesn't start": {func(n *node) {
			n.module("app", "2", map[string]string{"usr/lib/systemd/system/app.service": long("x")})
			n.system.broken = map[string]string{"usr/lib/systemd/system/app.service": "app"}
		}, "app 1, base 2, site 1", "unit app.service doesn't work: exit code 1"},
	} {
		t.Run(name, func(t *testing.T) {
			n := three(t)
			n.module("base", "2", map[string]string{"usr/base": long("base2")})
			c.spoil(n)
			r := n.must(Request{Kind: Update})
			if r.Outcome != WentLive || changes(r) != "changed base 1 2" || len(r.Failed) != 1 || !strings.Contains(r.Failed[0].Reason, c.why) {
				t.Errorf("%+v", r)
			}
			n.is(name, r.Generation, c.want)
			if again := n.must(Request{Kind: Update, DryRun: true}); len(again.Failed) != 1 && name != "a unit that doesn't start" {
				t.Errorf("again: %+v", again)
			}
		})
	}
}

// TestAnotherPriorityOfWhatRuns: a module that runs stays as it runs where it can't have the priority that it is assigned with.
func TestAnotherPriorityOfWhatRuns(t *testing.T) {
	n := three(t)
	m := n.module("app", "1", map[string]string{"usr/lib/systemd/system/app.service": long("x")})
	n.must(Request{Kind: Update})
	n.is("before", 2, "app 1, base 1, site 1")
	n.system.broken = map[string]string{"usr/lib/systemd/system/app.service": "app"}
	m.EffectivePriority += 5
	n.assign(m)
	r := n.must(Request{Kind: Update})
	if r.Outcome != InStep || len(r.Failed) != 1 || r.Failed[0].Kept != "1" || !strings.Contains(r.Failed[0].Reason, "app.service doesn't work") {
		t.Errorf("%+v", r)
	}
	n.is("alone", 2, "app 1, base 1, site 1")
	n.module("base", "2", map[string]string{"usr/base": long("base2")})
	if r = n.must(Request{Kind: Update}); r.Outcome != WentLive || changes(r) != "changed base 1 2" || len(r.Failed) != 1 {
		t.Errorf("%+v", r)
	}
	n.is("beside a good one", r.Generation, "app 1, base 2, site 1")
}

// TestWhatCantBeKept: modules that can't be used, and that nothing can stay in the place of, are no removal that somebody meant.
func TestWhatCantBeKept(t *testing.T) {
	n := three(t)
	g, err := n.store.Generation(1)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range g.Modules {
		if m.Name == "base" {
			continue
		}
		n.assign(n.publish(m.Name, "2", nil, nil))
		if err := os.RemoveAll(filepath.Join(n.store.Path(), "modules", strings.TrimPrefix(m.ManifestDigest, "sha256:"))); err != nil {
			t.Fatal(err)
		}
	}
	_, err = n.do(Request{Kind: Update, RemoveMost: true})
	if fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), "2 of 3 modules would go at once") || !strings.Contains(err.Error(), "signature") {
		t.Errorf("%v", err)
	}
	n.is("after", 1, "app 1, base 1, site 1")
}

// TestNothingIsTakenByMistake.
func TestNothingIsTakenByMistake(t *testing.T) {
	n := three(t)
	all := n.list.Modules
	for name, list := range map[string][]nodeapi.Module{"an empty list": nil, "most of it": all[:1]} {
		n.list.Modules = list
		if _, err := n.do(Request{Kind: Update}); fault.KindOf(err) != fault.Refuse {
			t.Errorf("%s: %v", name, err)
		}
		n.is(name, 1, "app 1, base 1, site 1")
	}
	if _, err := n.do(Request{Kind: Detach, Modules: []string{"app", "site"}}); fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), "2 of 3") {
		t.Errorf("detach: %v", err)
	}
	n.list.RemoveMost, n.list.Modules = true, all[:1]
	n.must(Request{Kind: Update})
	n.is("it was meant", 2, all[0].Name+" 1")
}

// TestStaged: what can't go live is staged, with the reason.
func TestStaged(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(n *node)
		request Request
		reason  string
	}{
		"by wish":          {func(*node) {}, Request{Kind: Update, Stage: true}, "it was asked for"},
		"by the machine":   {func(n *node) { n.system.obstacles = []string{"an old kernel"} }, Request{Kind: Update}, "an old kernel"},
		"a file in /":      {func(n *node) { n.module("new", "1", map[string]string{"vmlinuz": long("x")}) }, Request{Kind: Update}, "/vmlinuz is a file in the root directory itself"},
		"a file in /boot":  {func(n *node) { n.module("new", "1", map[string]string{"boot/vmlinuz": long("x")}) }, Request{Kind: Update}, "/boot"},
		"the module's own": {func(n *node) { n.manifest = "reboot_required: true\n"; n.module("new", "1", nil) }, Request{Kind: Update}, "module new 1 asks for a restart"},
	} {
		t.Run(name, func(t *testing.T) {
			n := three(t)
			n.module("app", "2", map[string]string{"usr/app": long("app2")})
			c.prepare(n)
			r := n.must(c.request)
			if r.Outcome != Staged || r.Plan.Way != Boot || len(r.Plan.Reasons) != 1 || !strings.Contains(r.Plan.Reasons[0], c.reason) || n.pointer(store.Staged) != r.Generation {
				t.Errorf("%+v, %+v", r, r.Plan)
			}
			n.is(name, 1, "app 1, base 1, site 1")
		})
	}
}

// TestFailedChangesLeaveEverything as it was: mounts, pointers, the administrator's word.
func TestFailedChangesLeaveEverything(t *testing.T) {
	n := three(t)
	n.system.swapErr = errors.New("no room")
	if _, err := n.do(Request{Kind: Detach, Modules: []string{"site"}}); !errors.Is(err, n.system.swapErr) {
		t.Error(err)
	}
	n.is("swap", 1, "app 1, base 1, site 1")
	if l, err := desired.ReadLocal(n.store.Path()); err != nil || len(l.Detached) != 0 {
		t.Errorf("%+v, %v", l, err)
	}
	n.system.swapErr = nil
	// The pointer can't be written.
	dir := filepath.Join(n.store.Path(), "generations")
	if err := os.Mkdir(filepath.Join(dir, "4.live"), 0o700); err != nil {
		t.Fatal(err)
	}
	n.must(Request{Kind: Detach, Modules: []string{"app"}})
	n.is("detached", 3, "base 1, site 1")
	if _, err := n.do(Request{Kind: Detach, Modules: []string{"site"}}); err == nil {
		t.Error("a record that can't be written")
	}
	n.is("commit", 3, "base 1, site 1")
	if l, err := desired.ReadLocal(n.store.Path()); err != nil || !slices.Equal(l.Detached, []string{"app"}) {
		t.Errorf("%+v, %v", l, err)
	}
}
