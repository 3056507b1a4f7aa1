package catalog

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/powernode/powernode-agent/internal/compose"
	"github.com/powernode/powernode-agent/internal/composefs"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/platform/db"
	"github.com/powernode/powernode-agent/internal/tree"
)

const (
	// rootFormat goes into the hash of a composition's inputs. A change of what composition
	// makes of the same inputs needs another value, so that no root computed before is shown.
	rootFormat = "powernode root 1"
	// maxImage is the largest module image that is read, in bytes.
	maxImage = 1 << 30
	// maxConflicts is how many conflicts of a composition are kept for the operator to see.
	maxConflicts = 500
)

// ExpectedRoot returns the composition of the modules on an architecture: what a node's root
// digest must be, or why there is none. The first time it composes; later it remembers. A module
// that lacks an image for the architecture is fault.Refuse.
func (c *Catalog) ExpectedRoot(ctx context.Context, architecture string, modules []db.Module) (db.Root, error) {
	hash, err := inputHash(architecture, modules)
	if err != nil {
		return db.Root{}, err
	}
	root, err := c.records.Root(ctx, hash)
	if !errors.Is(err, db.ErrNotFound) {
		return root, err
	}
	// Nodes with the same modules ask at the same time: one computes for all, also when the one
	// that asked first goes away.
	v, err, _ := c.flight.Do(hex.EncodeToString(hash[:]), func() (any, error) {
		ctx := context.WithoutCancel(ctx)
		root, err := c.compose(ctx, architecture, modules)
		if err != nil {
			return db.Root{}, err
		}
		return root, c.records.PutRoot(ctx, hash, root)
	})
	return v.(db.Root), err
}

// inputHash is the hash of everything that a composition depends on, in no order of arrival.
func inputHash(architecture string, modules []db.Module) ([32]byte, error) {
	type input struct {
		Name     string
		Priority int
		Seal     string
		// Manifest is the SHA-256 of the manifest's text: specs decide, too.
		Manifest string
	}
	var inputs []input
	for _, m := range modules {
		image, has := m.Image(architecture)
		if !has {
			return [32]byte{}, fault.New(fault.Refuse, fault.Input, "publish the module for "+architecture,
				"module %s %s has no image for %s", m.Name, m.Version, architecture)
		}
		sum := sha256.Sum256([]byte(image.Manifest))
		inputs = append(inputs, input{m.Name, m.EffectivePriority(), image.Seal.String(), hex.EncodeToString(sum[:])})
	}
	slices.SortFunc(inputs, func(a, b input) int { return cmp.Compare(a.Name, b.Name) })
	text, err := json.Marshal(inputs)
	if err != nil {
		return [32]byte{}, err
	}
	return sha256.Sum256(append([]byte(rootFormat+"\n"), text...)), nil
}

// compose does what a node does with its modules.
func (c *Catalog) compose(ctx context.Context, architecture string, modules []db.Module) (db.Root, error) {
	// The turn comes before the trees: those who wait for it hold none.
	done, err := c.work(ctx)
	if err != nil {
		return db.Root{}, err
	}
	defer done()
	var inputs []compose.Input
	for _, m := range modules {
		image, _ := m.Image(architecture) // inputHash has found it
		root, err := c.tree(ctx, m, image)
		if err != nil {
			return db.Root{}, fmt.Errorf("module %s %s: %w", m.Name, m.Version, err)
		}
		manifest, err := module.ParseManifest([]byte(image.Manifest))
		if err != nil {
			return db.Root{}, fmt.Errorf("module %s %s: its manifest.yaml: %w", m.Name, m.Version, err)
		}
		inputs = append(inputs, compose.Input{
			Name: m.Name, Version: m.Version, EffectivePriority: m.EffectivePriority(),
			Root: root, Mask: manifest.Mask, Protected: manifest.ProtectedSpec,
		})
	}
	result, err := compose.Compose(inputs)
	if fault.KindOf(err) == fault.Refuse {
		// The same modules are refused each time: that is worth remembering, too.
		return db.Root{Refusal: err.Error()}, nil
	}
	if err != nil {
		return db.Root{}, err
	}
	digest, err := composefs.Digest(result.Root, composefs.V1)
	if err != nil {
		return db.Root{}, fmt.Errorf("compute the root digest: %w", err)
	}
	out := db.Root{Digest: digest, Conflicts: []db.Conflict{}}
	for _, conflict := range result.Report.Conflicts[:min(len(result.Report.Conflicts), maxConflicts)] {
		out.Conflicts = append(out.Conflicts, db.Conflict{
			Path: conflict.Path, Winner: conflict.Winner, Losers: conflict.Losers, Reason: conflict.Reason,
		})
	}
	return out, nil
}

// tree returns a module's canonical tree as a node reads it: from the module's image. An image that
// is missing or damaged is made again from the layers first. The caller has its turn to work.
func (c *Catalog) tree(ctx context.Context, m db.Module, image db.Image) (*tree.Node, error) {
	data, err := c.readImage(image.Seal)
	if err != nil {
		if _, err := c.inspectNow(ctx, m.Repository, image.ManifestDigest); err != nil {
			return nil, err
		}
		if data, err = c.readImage(image.Seal); err != nil {
			return nil, err
		}
	}
	return composefs.Read(bytes.NewReader(data), int64(len(data)))
}

// readImage returns a module image whose bytes have that seal. A damaged one is removed.
func (c *Catalog) readImage(seal fsverity.Digest) ([]byte, error) {
	data, err := c.dir.ReadFile(seal.String(), maxImage)
	if err != nil {
		return nil, err
	}
	if got := fsverity.SumBytes(data); got != seal {
		return nil, errors.Join(fmt.Errorf("module image %s is damaged: its digest is %s", seal, got), c.dir.Remove(seal.String(), imageLabel))
	}
	return data, nil
}
