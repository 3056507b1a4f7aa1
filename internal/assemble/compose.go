package assemble

import (
	"bytes"
	"fmt"
	"time"

	"github.com/powernode/powernode-agent/internal/compose"
	"github.com/powernode/powernode-agent/internal/composefs"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/store"
)

// Composition is the root image of proven modules.
type Composition struct {
	Modules    []*Proven
	RootDigest fsverity.Digest
	Report     compose.Report

	image []byte
}

// Compose composes proven modules, in any order, into a root image.
func Compose(modules []*Proven) (*Composition, error) {
	inputs := make([]compose.Input, len(modules))
	for i, m := range modules {
		inputs[i] = compose.Input{
			Name: m.Wanted.Name, Version: m.Wanted.Version, EffectivePriority: m.Wanted.EffectivePriority,
			Root: m.Root, Mask: m.Manifest.Mask, Protected: m.Manifest.ProtectedSpec,
		}
	}
	result, err := compose.Compose(inputs)
	if err != nil {
		return nil, err
	}
	image, digest, err := composefs.Build(result.Root, composefs.V1)
	if err != nil {
		return nil, fmt.Errorf("write the root image: %w", err)
	}
	return &Composition{Modules: modules, RootDigest: digest, Report: result.Report, image: image}, nil
}

// Keep records the composition as a generation and returns it. The current generation is
// returned instead where it has the same modules and root digest: booting again adds nothing.
func (c *Composition) Keep(st *store.Store, cause, level string, now time.Time) (store.Generation, error) {
	modules := make([]store.GenerationModule, len(c.Modules))
	for i, m := range c.Modules {
		modules[i] = store.GenerationModule{
			ID: m.Wanted.ID, Name: m.Wanted.Name, Version: m.Wanted.Version, ManifestDigest: m.Wanted.ManifestDigest,
			Seal: m.Module.Seal, EffectivePriority: m.Wanted.EffectivePriority,
		}
	}
	current, err := currentGeneration(st)
	if err == nil && current.Number != 0 && current.RootDigest == c.RootDigest && sameModules(current.Modules, modules) && st.HasObject(c.RootDigest) {
		return current, nil
	}
	g := store.Generation{Created: now.UTC(), Modules: modules, RootDigest: c.RootDigest, Cause: cause, Level: level}
	if g.Number, err = st.PutGeneration(g, bytes.NewReader(c.image)); err != nil {
		return store.Generation{}, err
	}
	return g, nil
}

// currentGeneration returns the record that the pointer names, or the zero Generation.
func currentGeneration(st *store.Store) (store.Generation, error) {
	n, err := st.Pointer(store.Current)
	if err != nil || n == 0 {
		return store.Generation{}, err
	}
	return st.Generation(n)
}

// sameModules reports whether a and b hold the same modules in the same ranks, in any order.
func sameModules(a, b []store.GenerationModule) bool {
	if len(a) != len(b) {
		return false
	}
	in := make(map[store.GenerationModule]bool, len(a))
	for _, m := range a {
		in[m] = true
	}
	for _, m := range b {
		if !in[m] {
			return false
		}
	}
	return true
}

// WantedOf returns what a generation's record asks for. Repositories come from the store's own
// records of the modules.
func WantedOf(st *store.Store, g store.Generation) ([]Wanted, error) {
	wanted := make([]Wanted, len(g.Modules))
	for i, m := range g.Modules {
		rec, err := st.GetModule(m.ManifestDigest)
		if err != nil {
			return nil, fmt.Errorf("generation %d: module %s %s: %w", g.Number, m.Name, m.Version, err)
		}
		wanted[i] = Wanted{
			ID: m.ID, Name: m.Name, Version: m.Version, Repository: rec.Repository,
			ManifestDigest: m.ManifestDigest, EffectivePriority: m.EffectivePriority,
		}
	}
	return wanted, nil
}
