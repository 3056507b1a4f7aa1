package boot

import (
	"github.com/powernode/powernode-agent/internal/change/desired"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/retain"
	"github.com/powernode/powernode-agent/internal/store"
)

// desire makes of the platform's list what the node is to run: with what its administrator attached and detached, nothing
// less than half of what it had, and no module lower than it was. An error leaves the node with what it had.
func (b *boot) desire(list *nodeapi.ModuleList) ([]reconcile.Assigned, error) {
	local, err := desired.ReadLocal(b.store.Path())
	if err != nil {
		return nil, err
	}
	floors, err := b.store.Floors()
	if err != nil {
		return nil, err
	}
	wish := desired.Follow(list, local)
	for _, text := range wish.Remarks {
		b.remark(text, "")
	}
	had := b.generationOf(b.plan.known.Current).Modules
	if err := desired.Guard(had, wish.Modules, list.RemoveMost); err != nil {
		return nil, err
	}
	runs := make(map[store.GenerationModule]bool)
	for _, m := range had {
		runs[store.GenerationModule{Name: m.Name, Version: m.Version}] = true
	}
	for i, m := range wish.Modules {
		may := m.AllowDowngrade && m.Origin == reconcile.ByPlatform || runs[store.GenerationModule{Name: m.Name, Version: m.Version}]
		wish.Modules[i].Refused = retain.CheckFloor(floors, m.Name, m.Version, may)
	}
	return wish.Modules, nil
}
