// Package enroll keeps a node's certificate through its life: it exchanges a bootstrap token for the first one,
// rotates it, renews one that ended while the node was off, follows the platform's CA, and keeps key,
// certificate, CA and platform URL on the disk as one unit.
//
// It promises that a lost reply, a kill or a power cut at any instruction leaves the node either
// with its old credentials or with its new ones, and never unable to go on: the private key is on the
// disk before the first request, the same key asks again, and the platform answers it with the same
// certificate. An answer is checked against our key, the pinned CA and the instance before anything is
// replaced, and nothing is thrown away before its successor is there. Usable credentials on the disk come
// before any search for an identity.
//
// It trusts the pinned CA, the clock it is given (the platform's signed time, Options.Clock, unless the node was
// told to go by its own) and the directory, which only the agent's user may enter. It never prints a key or a
// token.
package enroll

import (
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
	// CAPEM is the only trust anchor, now and until the platform's CA rolls.
	CAPEM []byte
	Token secret.Text
	// InstanceID may be "": the token then says which instance this is.
	InstanceID string
	// Proxy is the URL of an HTTP proxy, as nodehttp.ParseProxy reads it; "" is none. It is kept with the
	// credentials.
	Proxy secret.Text
	// LocalClock says to judge certificates by the machine's clock, because the platform signs no time. It is
	// kept with the credentials.
	LocalClock bool
}

// Clock is the time that certificates are judged by. A *signedtime.Clock is one.
type Clock interface {
	Now() time.Time
	// Judges reports whether Now may decide that a certificate is good, Due whether the platform is to be asked for
	// its time, and Ask does so, in one attempt.
	Judges() bool
	Due() bool
	Ask(ctx context.Context, m *nodehttp.Material, o nodehttp.Options) error
}

// Options are the settings of Ensure and of a Keeper. Only Dir is required.
type Options struct {
	// Dir is the directory of the credentials. It is created, with mode 0700, once it is known who
	// the node is.
	Dir string
	// Wish is what a person asked for. Credentials that contradict it aren't used.
	Wish Wish
	// Discover finds out who the node is. It is called at most once, and only when the disk holds no
	// usable credentials; nil means that there is nothing to find out. Given says that what it returns comes from a
	// person, now.
	Discover func(context.Context) (Bootstrap, error)
	Given    bool
	// Now has the certificate replaced also where it serves.
	Now bool
	// Proxy and LocalClock, where they aren't nil, change what is kept with credentials that are there.
	Proxy      *secret.Text
	LocalClock *bool

	// KeyKind is where new keys are to live; "" is where the present one does, and FileKey where there is none. TPM makes those that live in one; nil is the
	// machine's first.
	KeyKind KeyKind
	TPM     TPM
	// Clock is what certificates are judged by; nil is HTTP.Now.
	Clock Clock

	// AgentVersion, Architecture and DMIUUID are told to the platform.
	AgentVersion, Architecture, DMIUUID string

	// Online, if not nil, waits until the network can be used. It runs before the platform is called; its error is the
	// call's.
	Online func(ctx context.Context) error
	// HTTP are the settings of the connection: clock, proxy, deadlines.
	HTTP nodehttp.Options
	// Backoff says how long to go on while the platform can't be reached or doesn't answer; the
	// zero value goes on until the context ends. Notify, if not nil, is told of each attempt that
	// failed and how long the next one waits.
	Backoff nodehttp.Backoff
	Notify  func(err error, wait time.Duration)
	// Wait has Ensure wait for an operator's approval for as long as it takes; without it the error holds a
	// *Waiting. Waits, if not nil, is told of each answer that says to wait.
	Wait  bool
	Waits func(w *Waiting)
	// Log takes what goes on; nil discards it.
	Log *slog.Logger
	// Hook sees every operation on the disk before it happens (package durable); nil for none.
	Hook durable.Hook

	// after is time.After, unless a test has no time.
	after func(time.Duration) <-chan time.Time
}

// filled returns o without gaps.
func (o Options) filled() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.TPM == nil {
		o.TPM = TPMAt("")
	}
	if o.after == nil {
		o.after = time.After
	}
	return o
}

func (o Options) now() time.Time {
	switch {
	case o.Clock != nil:
		return o.Clock.Now()
	case o.HTTP.Now != nil:
		return o.HTTP.Now()
	}
	return time.Now()
}

// http returns the settings of a connection that is judged by the right clock.
func (o Options) http() nodehttp.Options {
	h := o.HTTP
	h.Now = o.now
	return h
}

func (o Options) keys() keyring { return keyring{o.TPM} }

func (o Options) means() Means {
	m := Means{Now: o.Now}
	switch {
	case o.Discover != nil && o.Given:
		m.Token = TokenGiven
	case o.Discover != nil:
		m.Token = TokenToFind
	}
	return m
}

// Ensure returns usable credentials: those on the disk, or new ones from the platform. It also
// returns the situation that it found. Several calls, also of several processes, come one after
// the other. Calling it again after any failure is safe, and goes on where the last call stopped.
func Ensure(ctx context.Context, o Options) (*Credentials, Situation, error) {
	o = o.filled()
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
	state, err := settle(ctx, o, d)
	if err != nil {
		return nil, state.Situation, err
	}
	c, err := perform(ctx, o, d, state)
	return c, state.Situation, err
}

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
