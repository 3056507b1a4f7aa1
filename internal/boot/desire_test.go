package boot

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/reconcile"
)

// list is what a platform assigns: "name version" each.
func (h *history) list(modules ...[2]string) *nodeapi.ModuleList {
	l := &nodeapi.ModuleList{}
	for _, m := range modules {
		l.Modules = append(l.Modules, nodeapi.Module{ID: m[0], Name: m[0], Version: m[1]})
	}
	return l
}

// TestDesireHoldsFloors: what runs and what was staged here comes as what is assigned; anything else that is lower doesn't.
func TestDesireHoldsFloors(t *testing.T) {
	h := newHistory(t)
	h.ran("base 1", "app 9")
	h.ran("base 1", "app 3", "tool 5") // somebody rolled back
	staged := h.staged("base 1", "app 2", "tool 5")
	desire := func(modules ...[2]string) []reconcile.Assigned {
		t.Helper()
		list := h.list(modules...)
		wanted, err := h.machineBoot().desire(list)
		if err != nil {
			t.Fatal(err)
		}
		return wanted
	}
	check := func(version string, ok bool) {
		t.Helper()
		wanted := desire([2]string{"base", "1"}, [2]string{"app", version}, [2]string{"tool", "5"})
		if (wanted[1].Refused == nil) != ok || wanted[0].Refused != nil || wanted[2].Refused != nil {
			t.Errorf("app %s: %v, %v, %v", version, wanted[1].Refused, wanted[0].Refused, wanted[2].Refused)
		}
	}
	check("9", true)
	check("10", true)
	check("8", false)
	check("3", true)
	check("2", true)
	app := desire([2]string{"base", "1"}, [2]string{"app", "2"}, [2]string{"tool", "5"})[1]
	if err := app.Accept(staged.Modules[1].ManifestDigest); err != nil {
		t.Error(err)
	}
	if err := app.Accept("sha256:other"); err == nil {
		t.Error("another build of what is staged was accepted")
	}

	// A damaged file leaves what runs and what is staged.
	if err := os.WriteFile(filepath.Join(h.store.Path(), "floors.json"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	check("3", true)
	check("2", true)
	check("10", false)
}

// TestDesireNotesWhatIsAssigned, also where none of it is taken on: what the status compares with what runs.
func TestDesireNotesWhatIsAssigned(t *testing.T) {
	h := newHistory(t)
	h.ran("base 1", "app 1", "tool 1", "other 1")
	if err := os.WriteFile(filepath.Join(h.store.Path(), "local.json"), []byte(`{"detached": ["tool"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	b := h.machineBoot()
	if _, err := b.desire(h.list([2]string{"base", "2"}, [2]string{"tool", "1"})); err == nil {
		t.Error("more than half goes")
	}
	if b.assigned == nil || b.assigned.At.IsZero() || len(b.assigned.Assigned) != 1 || b.assigned.Assigned[0] != (change.LastModule{Name: "base", Version: "2"}) {
		t.Errorf("%+v", b.assigned)
	}
}
