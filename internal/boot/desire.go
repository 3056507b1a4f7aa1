package boot

import (
	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/change/desired"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/retain"
)

// desire makes of the platform's list what the node is to run: with what its administrator attached and detached, nothing
// less than half of what it had, and no module lower than it was. An error leaves the node with what it had.
func (b *boot) desire(list *nodeapi.ModuleList) ([]reconcile.Assigned, error) {
	local, err := desired.ReadLocal(b.store.Path())
	if err != nil {
		return nil, err
	}
	wish := desired.Follow(list, local)
	b.assigned = b.noted(wish.Modules)
	for _, text := range wish.Remarks {
		b.remark(text, "")
	}
	runs := b.generationOf(b.plan.known.Current)
	if err := desired.Guard(runs.Modules, wish.Modules, list.RemoveMost); err != nil {
		return nil, err
	}
	// What was staged here was allowed then: it comes as what is assigned, and not as what is left when that is refused.
	rule := retain.NewFloorRule(b.store, runs, b.generationOf(b.plan.known.Staged))
	for i, m := range wish.Modules {
		wish.Modules[i] = rule.Apply(m)
	}
	return wish.Modules, nil
}

// noted returns what the platform assigns, as the status of the running system compares it with what runs. That it isn't followed, Facts.Refused
// says.
func (b *boot) noted(modules []reconcile.Assigned) *change.Last {
	last := &change.Last{At: b.now().UTC(), Assigned: []change.LastModule{}}
	for _, m := range modules {
		if m.Origin == reconcile.ByPlatform {
			last.Assigned = append(last.Assigned, change.LastModule{Name: m.Name, Version: m.Version})
		}
	}
	return last
}
