package desired

import (
	"fmt"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/store"
)

// Wish is what a node is to run.
type Wish struct {
	Modules []reconcile.Assigned
	// Detached are modules that the platform assigns, and that aren't wanted here; in order of their names.
	Detached []string
	// Remarks are what a person should know of it.
	Remarks []string
}

// Follow returns what a node is to run by the platform's list and the administrator's word. An attachment goes
// before an assigned module of the same name, and says so.
func Follow(list *nodeapi.ModuleList, local Local) Wish {
	var w Wish
	for _, m := range list.Modules {
		switch _, attached := local.Has(m.Name); {
		case attached:
			w.Remarks = append(w.Remarks, fmt.Sprintf("module %s is attached here, and the platform assigns one of that name: the one attached here counts; powernode-agent attach %s follows the platform", m.Name, m.Name))
		case local.Without(m.Name):
			w.Detached = append(w.Detached, m.Name)
		default:
			w.Modules = append(w.Modules, reconcile.Assigned{Module: m, Origin: reconcile.ByPlatform})
		}
	}
	for _, a := range local.Attached {
		w.Modules = append(w.Modules, a.Assigned())
	}
	slices.Sort(w.Detached)
	return w
}

// Guard refuses a wish that takes too much from a node at once: everything, ever; more than half of what it
// runs, unless somebody said that this is meant.
func Guard(current []store.GenerationModule, wanted []reconcile.Assigned, removeMost bool) error {
	if len(current) == 0 {
		return nil
	}
	names := make(map[string]bool, len(wanted))
	for _, m := range wanted {
		names[m.Name] = true
	}
	var gone []string
	for _, m := range current {
		if !names[m.Name] {
			gone = append(gone, m.Name)
		}
	}
	if len(wanted) == 0 {
		return fault.New(fault.Refuse, fault.Policy, "assign modules to the node: powernode assign", "no module would be left of %d", len(current))
	}
	if len(gone)*2 <= len(current) || removeMost {
		return nil
	}
	slices.Sort(gone)
	return fault.New(fault.Refuse, fault.Policy, "if it is meant, say so: --remove-most here, or powernode unassign --remove-most",
		"%d of %d modules would go at once (%s), and nobody said that this is meant", len(gone), len(current), some(gone))
}

// some names at most eight.
func some(names []string) string {
	const most = 8
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
