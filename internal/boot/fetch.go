package boot

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/powernode/powernode-agent/internal/reconcile"
)

// fetch asks the platform what to run and brings it into the store. Without the platform, or with
// a module that can't be had, a node that has run before goes on with what ran.
func (b *boot) fetch(ctx context.Context) (string, error) {
	if b.plan.back.Number == 0 {
		err := b.fetchAssigned(ctx)
		if err != nil && ctx.Err() == nil {
			err = b.fallBack(err)
		}
		if err != nil {
			return "", err
		}
	}
	if n := b.plan.back.Number; n != 0 {
		return fmt.Sprintf("nothing; generation %d has %d modules", n, len(b.plan.wanted)), nil
	}
	p := b.facts.Pulled
	return fmt.Sprintf("%d modules, %d of them pulled: %d layers, %d bytes, %d new objects", len(b.plan.wanted), p.Modules, p.Layers, p.Bytes, p.NewObjects), nil
}

// fetchAssigned makes the platform's list the plan once all of it is in the store.
func (b *boot) fetchAssigned(ctx context.Context) error {
	r, err := b.reconcile()
	if err != nil {
		return err
	}
	plan, err := r.Fetch(ctx)
	if err != nil {
		return err
	}
	b.facts.Pulled = Pulled(plan.Pulled)
	for _, text := range plan.Remarks {
		b.remark(text, "")
	}
	if err := plan.Err(); err != nil {
		return err
	}
	b.plan.wanted, b.plan.expected = plan.Wanted, plan.Expected
	return nil
}

// reconcile returns what fetches, proves and composes for this boot, with the credentials that
// enroll found.
func (b *boot) reconcile() (*reconcile.Reconciler, error) {
	if b.reconciler != nil {
		return b.reconciler, nil
	}
	var err error
	b.reconciler, err = reconcile.New(reconcile.Config{
		Store: b.store, Verifier: b.trust.Verifier, Credentials: b.credentials, Arch: runtime.GOARCH,
		Level: b.level, Now: b.config.Now, Patience: b.patience(),
		Progress: func(name string, total int64) (func(int64), func(error)) {
			d := b.config.Progress(name, total)
			return d.Add, d.Done
		},
		Notify: func(err error, wait time.Duration) {
			b.console("          %v; trying again in %s", err, wait.Round(100*time.Millisecond))
		},
	})
	return b.reconciler, err
}

// patience returns how long to ask the platform: briefly where there is something to run without
// it. In namespaces somebody is waiting who can look into it.
func (b *boot) patience() reconcile.Patience {
	switch {
	case len(b.plan.ran) > 0 || b.plan.back.Number != 0:
		return reconcile.Brief()
	case b.config.Namespace:
		return reconcile.Patience{}
	default:
		return reconcile.Long()
	}
}
