package change

import (
	"slices"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/aftercare"
	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/health/systemd/systemdtest"
	"github.com/powernode/powernode-agent/internal/store"
)

// TestStepsThatFailAreTold: the change is done in part, and the heartbeat says so until another one is done wholly.
func TestStepsThatFailAreTold(t *testing.T) {
	n := three(t)
	n.system.failed = []string{"run ldconfig: exit code 1"}
	n.module("base", "2", map[string]string{"usr/base": long("base2")})
	if r := n.must(Request{Kind: Update}); r.Outcome != WentLive || !slices.Equal(r.Undone, n.system.failed) || slices.Contains(r.Remarks, n.system.failed[0]) {
		t.Errorf("%+v", r)
	}
	told := func(what, want string) {
		t.Helper()
		last, _, err := ReadLast(n.run)
		if text := strings.Join(last.Remarks(), "; "); err != nil || !strings.Contains(text, want) || want == "" && text != "" {
			t.Errorf("%s: %q, %v", what, text, err)
		}
	}
	told("an update", "the last change is done in part: run ldconfig: exit code 1")
	n.system.failed = nil
	n.must(Request{Kind: Update})
	told("nothing done since", "run ldconfig: exit code 1")
	n.must(Request{Kind: Detach, Modules: []string{"site"}})
	told("the next change", "")
}

// TestStepsThatFailForSomebodyElse: of a change whose process was killed, too.
func TestStepsThatFailForSomebodyElse(t *testing.T) {
	n := ready(t)
	n.stepping(func(op string) error {
		if op == "finish" {
			panic(killed(op))
		}
		return nil
	})
	if at, err := n.dies(n.hook, Request{Kind: Detach, Modules: []string{"site"}}); at != "finish" || err != nil {
		t.Fatal(at, err)
	}
	n.stepping(nil)
	n.system.resumed = []string{"unit a.service doesn't work: exit code 1"}
	text, err := n.changer().Recover(t.Context())
	if err != nil || !strings.Contains(text, "is finished now") || !strings.Contains(text, "a.service") {
		t.Errorf("%q, %v", text, err)
	}
	if last, _, err := ReadLast(n.run); err != nil || !slices.Equal(last.Undone, n.system.resumed) {
		t.Errorf("%+v, %v", last, err)
	}
}

// TestUnitsThatNobodyIsBlamedFor: a unit that doesn't work, and whose module the change didn't bring, is a step that failed.
func TestUnitsThatNobodyIsBlamedFor(t *testing.T) {
	const unit = "usr/lib/systemd/system/app.service"
	for name, r := range map[string]Request{
		"another module's": {Kind: Detach, Modules: []string{"site"}}, "of a rollback": {Kind: Rollback, Generation: 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.module("app", "1", map[string]string{unit: long("x")})
			w.module("base", "1", nil)
			w.module("site", "1", nil)
			n := w.runs()
			n.module("app", "2", map[string]string{unit: long("y")})
			n.must(Request{Kind: Update})
			n.system.broken = map[string]string{unit: "app"}
			got := n.must(r)
			if got.Outcome != WentLive || len(got.Undone) != 1 || !strings.Contains(got.Undone[0], "unit app.service doesn't work: exit code 1") {
				t.Errorf("%+v", got)
			}
			if last, ok, err := ReadLast(n.run); !ok || err != nil || !slices.Equal(last.Undone, got.Undone) || len(last.Assigned) != 3 {
				t.Errorf("%+v, %t, %v", last, ok, err)
			}
		})
	}
}

// TestWhatFailedOfWhatIsTakenBack isn't to be done any more.
func TestWhatFailedOfWhatIsTakenBack(t *testing.T) {
	n := three(t)
	n.system.failed = []string{"run ldconfig: exit code 1"}
	n.system.broken = map[string]string{"usr/bad": "app"}
	n.module("app", "2", map[string]string{"usr/bad": long("x")})
	r := n.must(Request{Kind: Update})
	if r.Outcome != InStep || len(r.Failed) != 1 || len(r.Undone) != 0 || !slices.Contains(r.Remarks, n.system.failed[0]) {
		t.Errorf("%+v", r)
	}
}

// TestStepsBeforeTheSwapAreTold of once it is done.
func TestStepsBeforeTheSwapAreTold(t *testing.T) {
	c := &Care{Root: t.TempDir(), Run: t.TempDir(), failed: []string{"stop a.service: no answer"}}
	for _, want := range [][]string{{"stop a.service: no answer"}, nil} {
		if failures, failed := c.after(t.Context(), store.Generation{}, &aftercare.Plan{}, nil); len(failures) != 0 || !slices.Equal(failed, want) {
			t.Errorf("%+v, %q", failures, failed)
		}
	}
}

// TestWhoStartedIt: a change that is taken back stops what it started, and not what somebody else had started before.
func TestWhoStartedIt(t *testing.T) {
	run := t.TempDir()
	f := &systemdtest.Fake{Properties: map[string]map[string]any{
		"ours.service": {"ActiveState": "inactive", "SubState": "dead"}, "theirs.service": {"ActiveState": "active", "SubState": "running"},
	}}
	f.Start(t, run)
	c := &Care{Root: t.TempDir(), Run: t.TempDir(), Manager: systemd.Manager{Run: run}}
	m := &Machine{Care: c}
	findings := Findings{Aftercare: &aftercare.Plan{Start: []aftercare.UnitStep{{Unit: "ours.service"}, {Unit: "theirs.service"}}}}
	m.After(t.Context(), Step{}, findings)
	_, err := m.Undo(t.Context(), Step{}, findings)
	var stopped []string
	for _, a := range f.Asked() {
		if unit, ok := strings.CutPrefix(a, "StopUnit "); ok {
			stopped = append(stopped, unit)
		}
	}
	if !slices.Equal(stopped, []string{"ours.service"}) {
		t.Errorf("stopped %q (%v)", stopped, err)
	}
}
