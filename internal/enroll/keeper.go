package enroll

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/signedtime"
)

// Keeper keeps a node's credentials for as long as a service runs: it gives every call those that are in
// force now, also after another process has replaced them, hears what the platform makes of them, and replaces
// them in time. It may be used by several goroutines.
type Keeper struct {
	o Options

	mu   sync.Mutex
	c    *Credentials // nil where there are none
	why  error        // why not
	seen os.FileInfo  // of the file that c was read from
	// shut is what the platform ended the last handshake for.
	shut *nodehttp.Material
}

// NewKeeper returns a Keeper of the credentials in o.Dir, which need not be there yet. Of o it uses Dir, KeyKind,
// TPM, Clock, AgentVersion, DMIUUID, HTTP, Log and Hook: it makes one attempt at a time.
func NewKeeper(o Options) *Keeper {
	o = o.filled()
	o.Wish, o.Discover, o.Backoff = Wish{}, nil, nodehttp.Backoff{Tries: 1}
	return &Keeper{o: o}
}

// Credentials returns the node's credentials, whatever their situation, or an error where there are none: also those
// that the platform refused are worth trying, as it may change its mind.
func (k *Keeper) Credentials() (*Credentials, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.current()
}

// current returns the credentials after reading them again where the file is another one. k.mu is held.
func (k *Keeper) current() (*Credentials, error) {
	info, err := os.Lstat(filepath.Join(k.o.Dir, unitFile))
	if err == nil && k.seen != nil && os.SameFile(info, k.seen) && info.ModTime().Equal(k.seen.ModTime()) {
		return k.c, k.why
	}
	state, err := inspectAt(k.o.Dir, Wish{}, k.o.now(), k.o.keys())
	if err != nil {
		return nil, err // of the disk: another look may do
	}
	k.seen = info
	k.take(state)
	return k.c, k.why
}

// take makes what was read the present credentials. Connections of the same ones go on.
func (k *Keeper) take(s State) {
	old, c := k.c, s.Credentials
	k.c, k.why = c, nil
	if c == nil || s.Situation == KeyAway {
		k.c, k.why = nil, s.refusal("use the credentials in "+k.o.Dir)
		k.seen = nil // a key may come back, and the file be there in a moment
		return
	}
	if old != nil && old.same(c) {
		c.material = old.material
	}
}

// Material implements nodeclient.Source.
func (k *Keeper) Material() (*nodehttp.Material, error) {
	c, err := k.Credentials()
	if err != nil {
		return nil, err
	}
	return c.material, nil
}

// Now is the time that certificates are judged by, for nodehttp.Options.
func (k *Keeper) Now() time.Time { return k.o.now() }

// Prepare makes sure, in one attempt, that there is a time which may judge the platform's certificate. It is to
// run before each call; most often it does nothing.
func (k *Keeper) Prepare(ctx context.Context) error {
	c, err := k.Credentials()
	if err != nil {
		return err
	}
	if err := k.o.askTime(ctx, c.material, c.LocalClock); err != nil && !k.o.Clock.Judges() {
		return err
	}
	return nil
}

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

// Status is what can be said of the credentials now.
type Status struct {
	Situation Situation
	// Reason says in a sentence's part what is wrong, "" where nothing is; Hint what a person can do.
	Reason, Hint string
	// The rest is zero where there are no credentials. Serial is in hexadecimal digits.
	Serial              string
	NotBefore, NotAfter time.Time
	// RotateAt is when the certificate is to be replaced.
	RotateAt time.Time
	// CABundleSHA256 is that of the CA bundle that the node trusts.
	CABundleSHA256 string
	// Unused says that the certificate is new, and the platform hasn't taken it yet.
	Unused bool
	// Shut says that the platform ended the last handshake because of the certificate.
	Shut bool
	// Key says where the key lives.
	Key KeyKind
}

// Status reads the credentials from the disk and judges them.
func (k *Keeper) Status() (Status, error) {
	state, err := inspectAt(k.o.Dir, Wish{}, k.o.now(), k.o.keys())
	if err != nil {
		return Status{}, err
	}
	s := state.Status()
	k.mu.Lock()
	defer k.mu.Unlock()
	s.Shut = k.shut != nil && k.c != nil && k.shut == k.c.material && k.c.Serial() == s.Serial
	return s, nil
}

// Status returns what can be said of a State.
func (s State) Status() Status {
	out := Status{Situation: s.Situation, Reason: s.Reason, Hint: s.Situation.Hint()}
	if c := s.Credentials; c != nil {
		out.Serial, out.NotBefore, out.NotAfter = c.Serial(), c.Leaf.NotBefore, c.Leaf.NotAfter
		out.RotateAt = RotateAt(c.Leaf.NotBefore, c.Leaf.NotAfter, c.Leaf.SerialNumber)
		out.CABundleSHA256, out.Unused, out.Key = c.CABundleSHA256(), c.previous != nil, c.KeyKind()
	}
	return out
}

// String says it in one line.
func (s Status) String() string {
	if s.Reason == "" {
		return s.Situation.String()
	}
	return fmt.Sprintf("%s: %s", s.Situation, s.Reason)
}
