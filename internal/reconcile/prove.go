package reconcile

import (
	"context"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/store"
)

// Prove proves modules that are in the store: signature, seal and objects of each, in this order.
// It stops at the first that can't be proven.
func (r *Reconciler) Prove(ctx context.Context, wanted []assemble.Wanted) ([]*assemble.Proven, error) {
	prover := assemble.Prover{Store: r.config.Store, Verifier: r.config.Verifier, Fresh: r.fresh.Set(), Enforce: r.enforce()}
	proven := make([]*assemble.Proven, 0, len(wanted))
	for _, w := range wanted {
		p, err := prover.Prove(ctx, w)
		if err != nil {
			return nil, err
		}
		proven = append(proven, p)
	}
	return proven, nil
}

func (r *Reconciler) enforce() bool { return r.config.Level == mount.Enforced }

// Compose composes proven modules and puts the root image into the store. No record names it
// until Keep.
func (r *Reconciler) Compose(ctx context.Context, proven []*assemble.Proven) (*assemble.Composition, error) {
	c, err := assemble.Compose(proven)
	if err != nil {
		return nil, err
	}
	if err := c.Store(ctx, r.config.Store, r.enforce()); err != nil {
		return nil, err
	}
	return c, nil
}

// Keep records a composition as a generation, which no pointer names yet, and returns it: the one
// that is there already, if it is of the same modules. cause says what made it: "boot", "update".
func (r *Reconciler) Keep(c *assemble.Composition, cause string) (store.Generation, error) {
	return c.Keep(r.config.Store, cause, string(r.config.Level), r.config.Now())
}
