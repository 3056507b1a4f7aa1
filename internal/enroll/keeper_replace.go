package enroll

import (
	"context"

	"github.com/powernode/powernode-agent/internal/durable"
)

// change has alter work on the credentials and their directory under the lock.
func (k *Keeper) change(ctx context.Context, alter func(*durable.Dir, *Credentials) error) error {
	d, release, err := openDir(ctx, k.o.Dir, k.o.Hook)
	if err != nil {
		return err
	}
	defer release()
	state, err := inspect(d, Wish{}, k.o.now(), k.o.keys())
	if err != nil {
		return err
	}
	c := state.Credentials
	if c == nil || state.Situation == KeyAway {
		return state.refusal("use the credentials in " + k.o.Dir)
	}
	return alter(d, c)
}

// Rotate replaces the certificate over itself, in one attempt. Where the platform says that the certificate
// isn't good any more, that is remembered.
func (k *Keeper) Rotate(ctx context.Context) error { return k.replace(ctx, rotate) }

// Renew replaces a certificate that has ended by proving its key, in one attempt. A *Waiting in the error says that
// an operator is to approve it.
func (k *Keeper) Renew(ctx context.Context) error { return k.replace(ctx, renew) }

func (k *Keeper) replace(ctx context.Context, by func(context.Context, Options, *durable.Dir, *Credentials) (*Credentials, error)) error {
	had, err := k.Credentials()
	if err != nil {
		return err
	}
	return k.change(ctx, func(d *durable.Dir, c *Credentials) error {
		if !c.Leaf.Equal(had.Leaf) {
			return nil // another process was there first
		}
		if err := tidy(d, c, k.o.Log); err != nil {
			return err
		}
		_, err := by(ctx, k.o, d, c)
		return also(err, remember(d, c, err, k.o.now()))
	})
}

// AdoptCA asks the platform which CAs to trust, and follows: see offeredCA.
func (k *Keeper) AdoptCA(ctx context.Context) error {
	return k.change(ctx, func(d *durable.Dir, c *Credentials) error {
		// Without the certificate, which the platform may not take any more.
		cas, bundle, err := k.o.offeredCA(ctx, c.stranger(), c.LocalClock, c.caPEM)
		if err != nil || cas == nil {
			return err
		}
		return save(d, c.trusting(cas, bundle))
	})
}
