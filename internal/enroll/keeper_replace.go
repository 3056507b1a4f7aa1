package enroll

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/signedtime"
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

// AdoptCA asks the platform which CAs to trust, and follows if the present ones have signed that, now, and the new ones
// vouch for the connection too. That the present ones vouch for the connection isn't enough: who has stolen a server's
// key would give the node a CA of his own.
func (k *Keeper) AdoptCA(ctx context.Context) error {
	const doing = "ask which CA to trust"
	return k.change(ctx, func(d *durable.Dir, c *Credentials) error {
		var answer nodeapi.CAResponse
		// Without the certificate, which the platform may not take any more.
		m := &nodehttp.Material{PlatformURL: c.PlatformURL, CAs: c.CAs, Proxy: c.Proxy()}
		conn, err := talk{k.o, m, c.LocalClock}.call(ctx, nodehttp.Call{
			Doing: doing, Method: http.MethodGet, Path: nodeapi.PathCA, Into: &answer,
		}, func() error { answer = nodeapi.CAResponse{}; return nil })
		if err != nil || answer.BundlePEM == c.caPEM {
			return err
		}
		cas, err := adoptable(answer.BundlePEM, conn, k.o.now())
		if err == nil {
			var said signedtime.Reading
			if said, err = signedtime.Ask(ctx, m, k.o.HTTP); err != nil {
				return fmt.Errorf("%s: %w", doing, err)
			}
			if said.CABundleSHA256 != bundleSum(answer.BundlePEM) {
				err = errors.New("its CA has not signed this bundle")
			}
		}
		if err != nil {
			return fault.New(fault.Broken, fault.Platform, hintUnchanged, "%s at %s: the platform's answer is refused: %w", doing, conn.URL(), err)
		}
		k.o.Log.Info("the node follows the platform's CA", "certificates", len(cas), "sha256", bundleSum(answer.BundlePEM))
		return save(d, c.trusting(cas, answer.BundlePEM))
	})
}
