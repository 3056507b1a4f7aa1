package enroll

import (
	"context"
	"fmt"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
)

// settle reads what the disk holds, after the settings of o were put into it, and judges it by a clock that can.
func settle(ctx context.Context, o Options, d *durable.Dir) (State, error) {
	state, err := inspect(d, o.Wish, o.now(), o.keys())
	if err != nil {
		return state, fmt.Errorf("read the credentials in %s: %w", o.Dir, err)
	}
	c := state.Credentials
	if c == nil {
		return state, nil
	}
	if n := o.resettle(state); n != c {
		if err := save(d, n); err != nil {
			return state, fmt.Errorf("change the credentials' settings: %w", err)
		}
		c, state.Credentials = n, n
	}
	// A clock that nobody vouches for may say so wrongly. Where the certificate begins in the future, it is used in any
	// case, and whoever calls the platform asks for the time.
	if state.Situation != Expired || c.LocalClock {
		return state, nil
	}
	if err := o.askTime(ctx, c.material, c.LocalClock); err != nil {
		return state, fmt.Errorf("%s: %w", state.Reason, err)
	}
	return inspect(d, o.Wish, o.now(), o.keys())
}

// resettle returns the credentials with the settings of o; the same ones where they have them.
func (o Options) resettle(s State) *Credentials {
	c := s.Credentials
	if s.Situation == OtherPlatform || s.Situation == OtherInstance || s.Situation == CAMismatch {
		return c // the settings are for what is asked for
	}
	if (o.Proxy == nil || o.Proxy.Equal(c.proxy)) && (o.LocalClock == nil || *o.LocalClock == c.LocalClock) {
		return c
	}
	return c.with(func(n *Credentials) {
		if o.Proxy != nil {
			n.proxy = *o.Proxy
		}
		if o.LocalClock != nil {
			n.LocalClock = *o.LocalClock
		}
	})
}

// perform does what the situation asks for, one thing after the other until one has succeeded.
func perform(ctx context.Context, o Options, d *durable.Dir, state State) (*Credentials, error) {
	var first, waits error
	for _, action := range Decide(state.Situation, o.means()) {
		c, err := act(ctx, o, d, state, action)
		switch {
		case err == nil:
			return c, nil
		case AsWaiting(err) != nil:
			waits = err
		case ctx.Err() != nil, fault.KindOf(err) == fault.Retry:
			// Another way leads to the same platform.
			return nil, err
		case first == nil:
			first = err
		default:
			first = fmt.Errorf("%w (%w)", err, first)
		}
	}
	if waits == nil {
		return nil, first
	}
	if !o.Wait {
		return nil, waits
	}
	return approved(ctx, o, d, state.Credentials, waits)
}

// act does one thing.
func act(ctx context.Context, o Options, d *durable.Dir, state State, action Action) (*Credentials, error) {
	c := state.Credentials
	switch action {
	case Use, UseAndRotate:
		if state.Reason != "" {
			o.Log.Warn("the node's certificate needs attention", "situation", state.Situation, "reason", state.Reason)
		}
		return c, tidy(d, c, o.Log)
	case Rotate:
		next, err := rotate(ctx, o, d, c)
		return next, also(err, remember(d, c, err, o.now()))
	case Renew:
		next, err := renew(ctx, o, d, c)
		if w := AsWaiting(err); w != nil && o.Waits != nil {
			o.Waits(w)
		}
		return next, also(err, remember(d, c, err, o.now()))
	case Enroll:
		return anew(ctx, o, d, state)
	case Refuse:
	}
	_, err := discover(ctx, Options{}, state)
	return nil, err
}

// approved asks again and again until an operator has decided.
func approved(ctx context.Context, o Options, d *durable.Dir, c *Credentials, err error) (*Credentials, error) {
	for w := AsWaiting(err); w != nil; w = AsWaiting(err) {
		select {
		case <-ctx.Done():
			return nil, err
		case <-o.after(w.Again):
		}
		var next *Credentials
		if next, err = act(ctx, o, d, State{Credentials: c}, Renew); err == nil {
			return next, nil
		}
	}
	return nil, err
}

// anew enrolls the node whatever the disk holds; that is replaced only by a checked answer.
func anew(ctx context.Context, o Options, d *durable.Dir, state State) (*Credentials, error) {
	o.Log.Info("the node enrolls", "situation", state.Situation, "reason", state.Reason)
	b, err := discover(ctx, o, state)
	if err != nil {
		return nil, err
	}
	key, err := pendingKey(ctx, d, o, forEnroll, state.Credentials)
	if err != nil {
		return nil, fmt.Errorf("enroll this node: %w", err)
	}
	c, err := exchange(ctx, o, b, key)
	if err != nil {
		return nil, state.because(err)
	}
	if err := save(d, c); err != nil {
		return nil, fmt.Errorf("enroll this node: %w", err)
	}
	o.Log.Info("the node is enrolled", "credentials", c)
	if err := forgetPending(d, forEnroll); err != nil {
		return nil, fmt.Errorf("enroll this node: %w", err)
	}
	return c, nil
}

// because says before err why the node enrolls anew, where it had been enrolled: what the platform says of its token
// isn't the news.
func (s State) because(err error) error {
	if s.Reason == "" || s.Situation == None || s.Situation == KeyOnly {
		return err
	}
	return fmt.Errorf("%s: %w", s.Reason, err)
}

// discover finds out who the node is, and insists on a token.
func discover(ctx context.Context, o Options, state State) (b Bootstrap, err error) {
	if o.Discover != nil {
		if b, err = o.Discover(ctx); err != nil {
			return b, fmt.Errorf("%s: %w", state.Reason, err)
		}
	}
	if b.Token.IsZero() {
		return b, fault.New(fault.Refuse, fault.Input, state.Situation.Hint(), "enroll this node: %s, and there is no token", state.Reason)
	}
	return b, nil
}
