package enroll

import (
	"context"
	"errors"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// Heard is to be told what became of each call with the material m: a call that the platform took ends the
// wait of the pair before and every bad word; one that it refused by a word on the certificate is remembered,
// and has the pair before come back where that is in force and the present one was never used.
func (k *Keeper) Heard(m *nodehttp.Material, err error) {
	if clock, ok := k.o.Clock.(interface{ Doubt() }); ok && errors.Is(err, nodehttp.ErrValidity) {
		clock.Doubt() // it may have stood still together with the machine
	}
	if err := k.hear(m, err); err != nil {
		// The next call brings the same word.
		k.o.Log.Warn("what the platform said of the node's certificate isn't kept", "error", err)
	}
}

func (k *Keeper) hear(m *nodehttp.Material, err error) error {
	k.mu.Lock()
	c := k.c
	if k.shut = nil; errors.Is(err, nodehttp.ErrOwnCertificate) {
		k.shut = m
	}
	k.mu.Unlock()
	if c == nil || c.material != m {
		return nil // of a pair that isn't in use any more
	}
	judge := func(c *Credentials) *Credentials {
		if err == nil {
			return afterSuccess(c)
		}
		return afterRefusal(c, err, k.o.now())
	}
	if judge(c) == c {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), heardTime)
	defer cancel()
	return k.change(ctx, func(d *durable.Dir, now *Credentials) error {
		n := judge(now)
		if !now.same(c) || n == now {
			return nil
		}
		k.tell(now, n, err)
		return save(d, n)
	})
}

// tell logs what an answer made of the credentials.
func (k *Keeper) tell(was, is *Credentials, err error) {
	switch {
	case err == nil:
		k.o.Log.Info("the platform takes the node's certificate", "serial", is.Serial())
	case is.Serial() != was.Serial():
		k.o.Log.Warn("the platform refuses the node's new certificate; the one before is used again", "serial", is.Serial(), "refused", was.Serial(), "error", err)
	default:
		k.o.Log.Warn("the platform refuses the node's certificate", "serial", is.Serial(), "error", err)
	}
}

// heardTime is how long an answer may wait for the credentials' lock.
const heardTime = 2 * time.Second
