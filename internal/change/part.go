package change

import (
	"fmt"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/store"
)

// part is a module of a change under way.
type part struct {
	assigned reconcile.Assigned
	offer    *assemble.Offer // nil for what stays as a generation has it
	want     assemble.Wanted
	seal     fsverity.Digest
	manifest *module.Manifest // of an offer
}

func (p part) record() store.GenerationModule {
	return store.GenerationModule{
		ID: p.want.ID, Name: p.want.Name, Version: p.want.Version, ManifestDigest: p.want.ManifestDigest,
		Seal: p.seal, EffectivePriority: p.want.EffectivePriority,
	}
}

func records(parts []part) []store.GenerationModule {
	list := make([]store.GenerationModule, len(parts))
	for i, p := range parts {
		list[i] = p.record()
	}
	return list
}

// originOf returns by whose word a module of a generation is there: one without an ID was never assigned.
func originOf(m store.GenerationModule) reconcile.Origin {
	if m.ID == "" {
		return reconcile.Here
	}
	return reconcile.ByPlatform
}

// keptPart returns a module as a generation has it.
func keptPart(st *store.Store, m store.GenerationModule) (part, error) {
	rec, err := st.ModuleRecord(m.ManifestDigest)
	if err != nil {
		return part{}, fmt.Errorf("module %s %s: %w", m.Name, m.Version, err)
	}
	p := part{seal: m.Seal, want: assemble.Wanted{
		ID: m.ID, Name: m.Name, Version: m.Version, Repository: rec.Repository, ManifestDigest: m.ManifestDigest, EffectivePriority: m.EffectivePriority,
	}}
	p.assigned.Origin = originOf(m)
	a := &p.assigned.Module
	a.ID, a.Name, a.Version, a.Repository, a.Digest, a.EffectivePriority = m.ID, m.Name, m.Version, rec.Repository, m.ManifestDigest, m.EffectivePriority
	return p, nil
}

// keptParts returns a generation's modules. What can't be read of them is an error: there is no plan without.
func keptParts(st *store.Store, g store.Generation) ([]part, error) {
	parts := make([]part, 0, len(g.Modules))
	for _, m := range g.Modules {
		p, err := keptPart(st, m)
		if err != nil {
			return nil, fmt.Errorf("generation %d: %w", g.Number, err)
		}
		parts = append(parts, p)
	}
	return parts, nil
}

// compare says what is different from the generation that runs.
func (r *Result) compare(current store.Generation, parts []part) {
	r.Changes = []Change{}
	byName := make(map[string]store.GenerationModule, len(current.Modules))
	for _, m := range current.Modules {
		byName[m.Name] = m
	}
	for _, p := range parts {
		was, ok := byName[p.want.Name]
		delete(byName, p.want.Name)
		if ok && was == p.record() {
			continue
		}
		c := Change{Kind: "added", Name: p.want.Name, Origin: p.assigned.Origin, To: p.want.Version, ToDigest: p.want.ManifestDigest}
		if ok {
			c.Kind, c.From, c.FromDigest = "changed", was.Version, was.ManifestDigest
		}
		if p.offer != nil && !p.offer.Here && r.DryRun {
			c.Size = p.offer.Size
		}
		r.Changes = append(r.Changes, c)
	}
	for _, m := range current.Modules {
		if _, gone := byName[m.Name]; gone {
			r.Changes = append(r.Changes, Change{Kind: "removed", Name: m.Name, Origin: originOf(m), From: m.Version, FromDigest: m.ManifestDigest})
		}
	}
}
