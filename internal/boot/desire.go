package boot

import (
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
