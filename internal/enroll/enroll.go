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
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
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
	// its time, and Ask does so, in one attempt. A method Doubt(), if there is one, makes it Due.
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
	// Now has the certificate replaced also where it serves. Shut says that it doesn't, though nothing on the disk says so:
	// the platform ended a handshake because of it (nodehttp.ErrOwnCertificate).
	Now, Shut bool
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
	m := Means{Now: o.Now, Shut: o.Shut}
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
