package agentcli

import (
	"fmt"
	"slices"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/live"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/rootfs"
	"github.com/powernode/powernode-agent/internal/store"
)

// mountDoc is a place at which a root image is mounted, by the kernel's table.
type mountDoc struct {
	Path string `json:"path"`
	// RootDigest is the image that is seen there; it is missing where somebody else's mount covers it.
	RootDigest fsverity.Digest `json:"root_digest,omitzero"`
	// Generation is the newest one with that root, 0 where none is on record.
	Generation uint64 `json:"generation,omitempty"`
	// EtcLayer says that it is a layer of local changes over that image's directory.
	EtcLayer bool `json:"etc_layer,omitempty"`
	// Covered counts mounts of ours beneath what is seen: a change was interrupted.
	Covered int `json:"covered,omitempty"`
}

// statusModule is a module of a generation, and by whose word it is there.
type statusModule struct {
	ID                string           `json:"id"`
	Name              string           `json:"name"`
	Version           string           `json:"version"`
	Origin            reconcile.Origin `json:"origin"`
	ManifestDigest    string           `json:"manifest_digest"`
	Seal              fsverity.Digest  `json:"seal"`
	EffectivePriority int              `json:"effective_priority"`
}

// statusModules returns the modules in the order in which they win. One without an ID was never assigned.
func statusModules(modules []store.GenerationModule) []statusModule {
	modules = slices.Clone(modules)
	slices.SortFunc(modules, func(a, b store.GenerationModule) int { return rankOf(a).Compare(rankOf(b)) })
	list := make([]statusModule, len(modules))
	for i, m := range modules {
		origin := reconcile.ByPlatform
		if m.ID == "" {
			origin = reconcile.Here
		}
		list[i] = statusModule{
			ID: m.ID, Name: m.Name, Version: m.Version, Origin: origin, ManifestDigest: m.ManifestDigest, Seal: m.Seal, EffectivePriority: m.EffectivePriority,
		}
	}
	return list
}

func rankOf(m store.GenerationModule) module.Rank {
	return module.Rank{EffectivePriority: m.EffectivePriority, Name: m.Name}
}

// mounted adds what is mounted as the root.
func (d *statusDoc) mounted(root string, st *store.Store, facts boot.Facts) {
	d.Mounts = []mountDoc{}
	union, digest, err := mountedRoot(root, st, facts.RootDigest)
	if err != nil {
		d.Reasons = append(d.Reasons, err.Error())
	}
	if union.Digest.IsZero() {
		return
	}
	d.RootDigest, d.Level = digest, union.Level
	d.Upper = upperOf(root, facts.Root.Upper)
	state, err := live.Mounted(root)
	if err != nil {
		d.Reasons = append(d.Reasons, err.Error())
		return
	}
	newest := newestOf(st)
	d.Mounts = append(d.Mounts, mountDoc{Path: "/", RootDigest: state.Base.Digest, Generation: newest[state.Base.Digest]})
	for _, dir := range state.Directories {
		d.Mounts = append(d.Mounts, mountDoc{
			Path: "/" + dir.Name, RootDigest: dir.RootDigest, Generation: newest[dir.RootDigest], EtcLayer: dir.EtcLayer, Covered: dir.Covered,
		})
		if dir.Covered > 0 && !dir.EtcLayer {
			d.Reasons = append(d.Reasons, fmt.Sprintf("a change was interrupted, and left %d mounts beneath /%s", dir.Covered, dir.Name))
		}
	}
}

// newestOf returns the newest generation of each root. Records that can't be read are left out; others tell of them.
func newestOf(st *store.Store) map[fsverity.Digest]uint64 {
	generations, _ := st.Generations()
	newest := make(map[fsverity.Digest]uint64)
	for _, g := range generations {
		newest[g.RootDigest] = max(newest[g.RootDigest], g.Number)
	}
	return newest
}

// upperOf returns how full the file system of the upper is, which overlayfs shows as its own.
func upperOf(root string, kind rootfs.UpperKind) *upperDoc {
	room, err := rootfs.RoomOf(root, kind, "")
	if err != nil {
		return nil
	}
	return &upperDoc{
		UsedBytes: room.UsedBytes, TotalBytes: room.TotalBytes, AvailableBytes: room.AvailableBytes,
		Percent: room.Percent, Fullness: room.Fullness, Warning: sentence(room.Warning()),
	}
}
