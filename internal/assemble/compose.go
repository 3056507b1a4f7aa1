package assemble

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
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
	// stored says that the image lies in the store.
	stored bool
}

// Compose composes proven modules, in any order, into a root image.
func Compose(modules []*Proven) (*Composition, error) {
	c, _, err := ComposeTree(modules)
	return c, err
}

// ComposeTree is Compose for who needs the composed tree, too, and what comes from which module.
func ComposeTree(modules []*Proven) (*Composition, *compose.Result, error) {
	result, err := Merge(modules)
	if err != nil {
		return nil, nil, err
	}
	c, err := Build(modules, result)
	return c, result, err
}

// Merge composes proven modules, in any order, into a tree.
func Merge(modules []*Proven) (*compose.Result, error) {
	inputs := make([]compose.Input, len(modules))
	for i, m := range modules {
		inputs[i] = compose.Input{
			Name: m.Wanted.Name, Version: m.Wanted.Version, EffectivePriority: m.Wanted.EffectivePriority,
			Root: m.Root, Mask: m.Manifest.Mask, Protected: m.Manifest.ProtectedSpec,
		}
	}
	result, err := compose.Compose(inputs)
	return &result, err
}

// Build makes the root image of the tree that modules were merged into. It only reads the tree.
func Build(modules []*Proven, merged *compose.Result) (*Composition, error) {
	image, digest, err := composefs.Build(merged.Root, composefs.V1)
	if err != nil {
		return nil, fmt.Errorf("write the root image: %w", err)
	}
	return &Composition{Modules: modules, RootDigest: digest, Report: merged.Report, image: image}, nil
}

// Store puts the root image into the store, where it can be mounted from, with fs-verity if
// enforce is set. No record names it until Keep. One that is there already is read whole: if
// it is as it should be nothing is written, so that a full disk boots; else these bytes take its place,
// which replaced tells.
func (c *Composition) Store(ctx context.Context, st *store.Store, enforce bool) (replaced bool, err error) {
	defer func() { c.stored = err == nil }()
	if st.HasObject(c.RootDigest) {
		// The kernel finds a bad block only when it is read, and below "/" that is too late.
		bad, err := st.Damaged(ctx, []fsverity.Digest{c.RootDigest}, true)
		switch {
		case err != nil:
			return false, err
		case len(bad) == 0 && enforce:
			return false, st.EnableVerity(ctx, []fsverity.Digest{c.RootDigest})
		case len(bad) == 0:
			return false, nil
		}
		if err := replaceObject(st, c.image); err != nil {
			return false, fmt.Errorf("replace a damaged root image: %w", err)
		}
		return true, nil
	}
	if _, err := st.AddBytes(c.image, c.RootDigest); err != nil {
		return false, fmt.Errorf("store the root image: %w", err)
	}
	return false, st.SyncObject(c.RootDigest)
}

// Keep records the composition as a generation and returns it. A generation that is there
// already, of the same modules with the same root digest, is returned instead: booting again adds
// nothing.
func (c *Composition) Keep(st *store.Store, cause, level string, now time.Time) (store.Generation, error) {
	modules := make([]store.GenerationModule, len(c.Modules))
	for i, m := range c.Modules {
		modules[i] = store.GenerationModule{
			ID: m.Wanted.ID, Name: m.Wanted.Name, Version: m.Wanted.Version, ManifestDigest: m.Wanted.ManifestDigest,
			Seal: m.Module.Seal, EffectivePriority: m.Wanted.EffectivePriority,
		}
	}
	// Damaged records are left out, and are no reason not to make another.
	known, _ := st.Generations()
	for _, g := range slices.Backward(known) {
		if g.RootDigest == c.RootDigest && Same(g.Modules, modules) {
			return g, nil
		}
	}
	g := store.Generation{Created: now.UTC(), Modules: modules, RootDigest: c.RootDigest, Cause: cause, Level: level}
	var image io.Reader
	if !c.stored {
		image = bytes.NewReader(c.image)
	}
	var err error
	if g.Number, err = st.PutGeneration(g, image); err != nil {
		return store.Generation{}, err
	}
	return g, nil
}

// Same reports whether a and b hold the same modules, in any order. Neither holds one twice.
func Same[T comparable](a, b []T) bool {
	in := make(map[T]bool, len(a))
	for _, m := range a {
		in[m] = true
	}
	for _, m := range b {
		if !in[m] {
			return false
		}
	}
	return len(a) == len(b)
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
