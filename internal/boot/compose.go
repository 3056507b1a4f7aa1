package boot

import (
	"context"
	"fmt"
	"time"
)

// verify proves every module of the plan from the store, whatever fetch did: signature, seal,
// objects. A plan that can't be proven gives way to a generation that ran before, proven likewise.
func (b *boot) verify(ctx context.Context) (string, error) {
	begun := time.Now()
	err := b.bounded(ctx, 0, b.prove)
	if err != nil {
		err = b.insteadOf(ctx, err, b.prove)
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d modules: signature, seal and objects of each, in %d ms", len(b.proven), time.Since(begun).Milliseconds()), nil
}

func (b *boot) prove(ctx context.Context) error {
	r, err := b.reconcile()
	if err != nil {
		return err
	}
	defer b.tellMended(len(r.Mended()))
	b.proven, err = r.Prove(ctx, b.plan.wanted)
	return err
}

// tellMended remarks what was mended, beyond the first ones, which were told.
func (b *boot) tellMended(told int) {
	for _, m := range b.reconciler.Mended()[told:] {
		b.remark(m.String(), "")
	}
}

// compose makes the root image. Modules that don't go together give way to those of a generation
// that ran before.
func (b *boot) compose(ctx context.Context) (string, error) {
	err := b.bounded(ctx, 0, b.composePlan)
	if err != nil {
		err = b.insteadOf(ctx, err, b.prove, b.composePlan)
	}
	if err != nil {
		return "", err
	}
	r := &b.composition.Report
	return fmt.Sprintf("%d files, %d conflicts, root %s", r.Entries, len(r.Conflicts), b.composition.RootDigest), nil
}

// composePlan composes the proven modules and puts the root image into the store. No record names
// it yet.
func (b *boot) composePlan(ctx context.Context) error {
	defer b.tellMended(len(b.reconciler.Mended()))
	c, err := b.reconciler.Compose(ctx, b.proven)
	if err != nil {
		return err
	}
	b.composition = c
	return nil
}
