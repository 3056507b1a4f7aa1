package change

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/change/desired"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/store"
)

// TestAWordWithoutEffectGoes: that a module was detached here is forgotten once nobody assigns it.
func TestAWordWithoutEffectGoes(t *testing.T) {
	for name, r := range map[string]Request{"update": {Kind: Update}, "attach": {Kind: Attach, Modules: []string{"site"}}} {
		t.Run(name, func(t *testing.T) {
			n := three(t)
			n.must(Request{Kind: Detach, Modules: []string{"site"}})
			if got := n.must(r); name == "update" && (len(got.Remarks) != 0 || !slices.Equal(got.Detached, []string{"site"})) {
				t.Errorf("while it is assigned: %+v", got)
			}
			if name == "attach" {
				n.must(Request{Kind: Detach, Modules: []string{"site"}})
			}
			n.list.Modules = slices.DeleteFunc(n.list.Modules, func(m nodeapi.Module) bool { return m.Name == "site" })
			dry := r
			dry.DryRun = true
			n.must(dry)
			if l, err := desired.ReadLocal(n.store.Path()); err != nil || !l.Without("site") {
				t.Errorf("after a dry run: %+v, %v", l, err)
			}
			if got := n.must(r); got.Outcome != InStep || len(got.Remarks) != 1 || !strings.Contains(got.Remarks[0], "doesn't assign module site any more") {
				t.Errorf("%+v", got)
			}
			if l, err := desired.ReadLocal(n.store.Path()); err != nil || !l.Equal(desired.Local{}) {
				t.Errorf("%+v, %v", l, err)
			}
		})
	}
}

// TestTheFloorHoldsWithoutThePlatform: what an earlier generation had is no way below it.
func TestTheFloorHoldsWithoutThePlatform(t *testing.T) {
	n := three(t)
	n.must(Request{Kind: Detach, Modules: []string{"site"}})
	raised := store.Generation{Number: 1, Modules: []store.GenerationModule{{Name: "site", Version: "2"}}}
	if err := n.store.RaiseFloors(raised, time.Now()); err != nil {
		t.Fatal(err)
	}
	n.down = fault.New(fault.Retry, fault.Platform, "", "no answer")
	attach := Request{Kind: Attach, Modules: []string{"site"}}
	if _, err := n.do(attach); fault.AreaOf(err) != fault.Policy || !strings.Contains(err.Error(), "site 1 is older than 2") {
		t.Errorf("%v", err)
	}
	attach.AllowDowngrade = true
	if r := n.must(attach); r.Outcome != WentLive || changes(r) != "added site 1" {
		t.Errorf("%+v", r)
	}
}

// TestAChangedModuleThatAskedForARestart isn't taken out live, whatever its next version says.
func TestAChangedModuleThatAskedForARestart(t *testing.T) {
	w := newWorld(t)
	w.module("base", "1", map[string]string{"usr/base": long("base")})
	w.manifest = "reboot_required: true\n"
	m := w.module("app", "1", map[string]string{"usr/app": long("app")})
	n := w.runs()
	m.EffectivePriority++
	n.assign(m)
	if r := n.must(Request{Kind: Update, DryRun: true}); r.Outcome != WouldStage || len(r.Plan.Reasons) != 1 {
		t.Errorf("another priority: %+v", r)
	}
	n.module("app", "2", map[string]string{"usr/app": long("app2")})
	if r := n.must(Request{Kind: Update}); r.Outcome != Staged || len(r.Plan.Reasons) != 1 || !strings.Contains(r.Plan.Reasons[0], "module app 1 asks for a restart") {
		t.Errorf("%+v", r)
	}
}

// TestBlame: the same failures give the same answer, whatever their order.
func TestBlame(t *testing.T) {
	failures := []UnitFailure{{"b.service", "site", "x"}, {"z.service", "app", "y"}, {"a.service", "app", "z"}}
	for range 2 {
		w := &work{result: &Result{Changes: []Change{{Kind: "added", Name: "app"}, {Kind: "changed", Name: "site"}}}}
		got := w.blame(slices.Clone(failures))
		if len(got) != 2 || got[0].module != "app" || got[0].reason.Error() != "unit a.service doesn't work: z; unit z.service doesn't work: y" || got[1].module != "site" {
			t.Errorf("%+v", got)
		}
		slices.Reverse(failures)
	}
}
