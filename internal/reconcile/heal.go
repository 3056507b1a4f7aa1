package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/store"
)

// Heal proves a generation's modules again, mends what is damaged of them, and makes its root image
// anew from them if that is. It returns what it mended, also beside an error. Set Deep in the Config to have every byte
// read.
func (r *Reconciler) Heal(ctx context.Context, g store.Generation) ([]Mended, error) {
	wanted, err := r.wantedOf(ctx, g)
	before := len(r.mended)
	var proven []*assemble.Proven
	if err == nil {
		proven, err = r.Prove(ctx, wanted)
	}
	var composition *assemble.Composition
	if err == nil {
		composition, err = assemble.Compose(proven)
	}
	if err == nil && composition.RootDigest != g.RootDigest {
		// Another release of the agent may compose otherwise. The root that runs stays as it is.
		err = fault.New(fault.Refuse, fault.Verify, "restart the machine, which composes the root anew",
			"generation %d has the root %s, and its modules give %s now", g.Number, g.RootDigest, composition.RootDigest)
	}
	if err == nil {
		err = r.healRoot(ctx, g, composition)
	}
	return r.mended[before:], err
}

func (r *Reconciler) healRoot(ctx context.Context, g store.Generation, c *assemble.Composition) error {
	replaced, err := c.Store(ctx, r.config.Store, r.enforce())
	if replaced {
		r.mended = append(r.mended, Mended{Objects: 1, Reason: fmt.Sprintf("the root image of generation %d was damaged", g.Number)})
	}
	return err
}

// wantedOf returns a generation's modules. One whose record can't be read is fetched by what the
// platform's list says of it, if that still has it.
func (r *Reconciler) wantedOf(ctx context.Context, g store.Generation) ([]assemble.Wanted, error) {
	wanted, err := assemble.WantedOf(r.config.Store, g)
	if err == nil || r.platform == nil {
		return wanted, err
	}
	list, listErr := r.List(ctx)
	if listErr != nil {
		return nil, fmt.Errorf("%w; nor can the platform be asked: %w", err, listErr)
	}
	repositories := make(map[string]string)
	for _, m := range list.Modules {
		repositories[m.ID] = m.Repository
	}
	wanted = wanted[:0]
	for _, m := range g.Modules {
		repository := repositories[m.ID]
		if rec, err := r.config.Store.GetModule(m.ManifestDigest); err == nil {
			repository = rec.Repository
		}
		if repository == "" {
			return nil, err
		}
		wanted = append(wanted, assemble.Wanted{
			ID: m.ID, Name: m.Name, Version: m.Version, Repository: repository,
			ManifestDigest: m.ManifestDigest, EffectivePriority: m.EffectivePriority,
		})
	}
	return wanted, nil
}

// HealDamage mends the damage that an Inspector found in a generation: what it names, and no more
// is read.
func (r *Reconciler) HealDamage(ctx context.Context, g store.Generation, found []Damage) ([]Mended, error) {
	wanted, err := r.wantedOf(ctx, g)
	if err != nil {
		return nil, err
	}
	before := len(r.mended)
	for _, w := range wanted {
		damage, reasons := &assemble.DamageError{Wanted: w}, []string(nil)
		for _, d := range found {
			if !slices.Contains(d.Modules, w.String()) {
				continue
			}
			reasons = append(reasons, d.String())
			if damage.Record = damage.Record || d.Object.IsZero(); !d.Object.IsZero() {
				damage.Objects = append(damage.Objects, d.Object)
			}
		}
		if len(damage.Objects) == 0 && !damage.Record {
			continue
		}
		damage.Err = errors.New(strings.Join(reasons, "; "))
		if _, err := r.mend(ctx, damage); err != nil {
			return r.mended[before:], err
		}
	}
	if slices.ContainsFunc(found, func(d Damage) bool { return d.Kind == "root image" }) {
		// It is composed of all modules, which are proven for it.
		_, err = r.Heal(ctx, g)
	}
	return r.mended[before:], err
}
