package reconcile

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/store"
)

// Prove proves modules that are in the store: signature, seal and objects of each, in this order.
// A module of which the store's copy is damaged is fetched again, once, and proven again; Mended
// tells of it. It stops at the first that can't be proven.
func (r *Reconciler) Prove(ctx context.Context, wanted []assemble.Wanted) ([]*assemble.Proven, error) {
	proven := make([]*assemble.Proven, 0, len(wanted))
	for _, w := range wanted {
		p, err := r.ProveOne(ctx, w)
		if err != nil {
			return nil, err
		}
		proven = append(proven, p)
	}
	return proven, nil
}

// ProveOne is Prove of one module.
func (r *Reconciler) ProveOne(ctx context.Context, w assemble.Wanted) (*assemble.Proven, error) {
	p, err := r.prover().Prove(ctx, w)
	damage, ok := errors.AsType[*assemble.DamageError](err)
	if !ok {
		return p, err
	}
	return r.mend(ctx, damage)
}

// ProveRunning proves modules of the root that runs, several at a time: their objects, which were proven for that root and are read
// from it, aren't looked at again. It returns those that are good; what is wrong with another, ProveOne says, and mends. Where every
// byte is to be read it returns none.
func (r *Reconciler) ProveRunning(ctx context.Context, wanted []assemble.Wanted) []*assemble.Proven {
	if r.config.Deep {
		return nil
	}
	prover := r.prover()
	prover.Running = true
	proven := make([]*assemble.Proven, len(wanted))
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, w := range wanted {
		group.Go(func() error {
			proven[i], _ = prover.Prove(ctx, w)
			return nil
		})
	}
	_ = group.Wait() // none returns an error
	return slices.DeleteFunc(proven, func(p *assemble.Proven) bool { return p == nil })
}

// mend fetches a damaged module again and proves it, unless that was tried already.
func (r *Reconciler) mend(ctx context.Context, damage *assemble.DamageError) (*assemble.Proven, error) {
	w := damage.Wanted
	if r.tried[w.ManifestDigest] {
		return nil, damage
	}
	r.tried[w.ManifestDigest] = true
	stats, err := r.fetcher().Mend(ctx, damage, &r.fresh)
	if err != nil {
		// What is damaged stays the reason: that it can't be fetched comes on top.
		return nil, fmt.Errorf("%w; nor can it be mended: %w", damage, err)
	}
	p, err := r.prover().Prove(ctx, w)
	if err != nil {
		return nil, err
	}
	r.mended = append(r.mended, Mended{Wanted: w, Objects: len(damage.Objects), Record: damage.Record, Bytes: stats.Compressed, Reason: damage.Error()})
	return p, nil
}

func (r *Reconciler) prover() *assemble.Prover {
	return &assemble.Prover{
		Store: r.config.Store, Verifier: r.config.Verifier, Fresh: r.fresh.Set(), Enforce: r.enforce(), Deep: r.config.Deep,
	}
}

// Mended is a module of which the store's copy was damaged, and is whole again.
type Mended struct {
	// Wanted is the module; zero for a root image.
	Wanted  assemble.Wanted
	Objects int
	// Record says that its record was written anew.
	Record bool
	// Bytes were fetched for it.
	Bytes  int64
	Reason string
}

// String says what was wrong and that it no longer is, for a remark.
func (m Mended) String() string {
	if m.Wanted == (assemble.Wanted{}) {
		return m.Reason + "; it was made anew"
	}
	return fmt.Sprintf("%s; it was fetched again, %d bytes, and is whole", m.Reason, m.Bytes)
}

// Mended returns what was mended so far.
func (r *Reconciler) Mended() []Mended { return r.mended }

func (r *Reconciler) enforce() bool { return r.config.Level == mount.Enforced && !r.config.ReadOnly }

// Compose composes proven modules and puts the root image into the store. No record names it
// until Keep. Mended tells of one that was there and damaged.
func (r *Reconciler) Compose(ctx context.Context, proven []*assemble.Proven) (*assemble.Composition, error) {
	c, err := assemble.Compose(proven)
	if err != nil {
		return nil, err
	}
	if err := r.Put(ctx, c); err != nil {
		return nil, err
	}
	return c, nil
}

// Put puts the root image of a composition into the store, as Compose does.
func (r *Reconciler) Put(ctx context.Context, c *assemble.Composition) error {
	replaced, err := c.Store(ctx, r.config.Store, r.enforce())
	if replaced {
		r.mended = append(r.mended, Mended{Objects: 1, Reason: fmt.Sprintf("the root image %s was damaged", c.RootDigest)})
	}
	return err
}

// Keep records a composition as a generation, which no pointer names yet, and returns it: the one
// that is there already, if it is of the same modules. cause says what made it: "boot", "update".
func (r *Reconciler) Keep(c *assemble.Composition, cause string) (store.Generation, error) {
	return c.Keep(r.config.Store, cause, string(r.config.Level), r.config.Now())
}
