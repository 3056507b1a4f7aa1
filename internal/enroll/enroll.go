// Package enroll exchanges a bootstrap token for a node's certificate, and keeps key, certificate,
// CA and platform URL on the disk as one unit.
//
// It promises that a lost reply, a kill or a power cut at any instruction leaves the node either
// with its old credentials or with its new ones, and never unable to go on: the private key is on the
// disk before the first request, the same key asks again, and the platform answers it with the same
// certificate. An answer is checked against our key, the pinned CA and the instance before anything is
// replaced. Usable credentials on the disk come before any search for an identity.
//
// It trusts the pinned CA, the clock it is given and the directory, which only the agent's user may
// enter. It never prints a key or a token.
package enroll

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/secret"
)

// Bootstrap is what a node must know to enroll.
type Bootstrap struct {
	PlatformURL string
	// CAPEM is the only trust anchor, now and after.
	CAPEM []byte
	Token secret.Text
	// InstanceID may be "": the token then says which instance this is.
	InstanceID string
}

// Options are the settings of Ensure.
type Options struct {
	// Dir is the directory of the credentials. It is created, with mode 0700, once it is known who
	// the node is.
	Dir string
	// Wish is what a person asked for. Credentials that contradict it aren't used.
	Wish Wish
	// Discover finds out who the node is. It is called at most once, and only when the disk holds no
	// usable credentials; nil means that there is nothing to find out.
	Discover func(context.Context) (Bootstrap, error)

	// AgentVersion, Architecture and DMIUUID are told to the platform.
	AgentVersion, Architecture, DMIUUID string

	// HTTP are the settings of the connection: clock, proxy, deadlines.
	HTTP nodehttp.Options
	// Backoff says how long to go on while the platform can't be reached or doesn't answer; the
	// zero value goes on until the context ends. Notify, if not nil, is told of each attempt that
	// failed and how long the next one waits.
	Backoff nodehttp.Backoff
	Notify  func(err error, wait time.Duration)
	// Log takes what goes on; nil discards it.
	Log *slog.Logger
	// Hook sees every operation on the disk before it happens (package durable); nil for none.
	Hook durable.Hook
}

func (o Options) now() time.Time {
	if o.HTTP.Now != nil {
		return o.HTTP.Now()
	}
	return time.Now()
}

// Ensure returns usable credentials: those on the disk, or new ones from the platform. It also
// returns the situation that it found. Several calls, also of several processes, come one after
// the other. Calling it again after any failure is safe, and goes on where the last call stopped.
func Ensure(ctx context.Context, o Options) (*Credentials, Situation, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if _, err := os.Stat(o.Dir); errors.Is(err, fs.ErrNotExist) {
		b, err := discover(ctx, o, State{Situation: None, Reason: None.reason(nil, o.Wish, o.now(), nil)})
		if err != nil {
			return nil, None, err
		}
		o.Discover = func(context.Context) (Bootstrap, error) { return b, nil }
	}
	d, release, err := openDir(ctx, o.Dir, o.Hook)
	if err != nil {
		return nil, None, err
	}
	defer release()
	state, err := inspect(d, o.Wish, o.now())
	if err != nil {
		return nil, None, fmt.Errorf("read the credentials in %s: %w", o.Dir, err)
	}
	if state.Situation.Usable() {
		if state.Reason != "" {
			o.Log.Warn("the node's certificate needs attention", "situation", state.Situation, "reason", state.Reason)
		}
		// A kill may have come between the credentials and the end of the waiting key.
		if key, err := readPending(d); err == nil && bytes.Equal(key, state.Credentials.key) {
			if err := forgetPending(d); err != nil {
				return nil, state.Situation, err
			}
		}
		return state.Credentials, state.Situation, nil
	}
	c, err := anew(ctx, o, d, state)
	return c, state.Situation, err
}

// anew enrolls the node whatever the disk holds; that is replaced only by a checked answer.
func anew(ctx context.Context, o Options, d *durable.Dir, state State) (*Credentials, error) {
	o.Log.Info("the node enrolls", "situation", state.Situation, "reason", state.Reason)
	b, err := discover(ctx, o, state)
	if err != nil {
		return nil, err
	}
	key, err := pendingKey(d, o.now())
	if err != nil {
		return nil, fmt.Errorf("enroll this node: %w", err)
	}
	c, err := exchange(ctx, o, b, key)
	if err != nil {
		return nil, err
	}
	if err := save(d, c); err != nil {
		return nil, fmt.Errorf("enroll this node: %w", err)
	}
	o.Log.Info("the node is enrolled", "credentials", c)
	return c, nil
}

// discover finds out who the node is, and insists on a token.
func discover(ctx context.Context, o Options, state State) (b Bootstrap, err error) {
	if o.Discover != nil {
		if b, err = o.Discover(ctx); err != nil {
			return b, fmt.Errorf("%s: %w", state.Reason, err)
		}
	}
	if b.Token.IsZero() {
		return b, fault.New(fault.Refuse, fault.Input, hintToken, "enroll this node: %s, and there is no token", state.Reason)
	}
	return b, nil
}
