package boot

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/identity/claim"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/secret"
	"github.com/powernode/powernode-agent/internal/version"
)

// ClaimDir returns the directory of a claim that is under way, below the directory of record.
func ClaimDir(stateDir string) string { return filepath.Join(stateDir, "claim") }

// lookAgain is how often a machine that waits to be claimed looks whether a source of identity has a token by now, as a stick that was
// plugged in.
const lookAgain = time.Minute

// claims is what a boot knows of its claim.
type claims struct {
	// wanted says that the machine has all that it takes to enroll but a token, and asks for one.
	wanted bool
	// look finds out what the machine says of itself; nil is claim.Look of this machine.
	look func() claim.Machine
	// again replaces lookAgain where it isn't 0.
	again time.Duration
	// sign is what is shown at the moment; nil while nothing is.
	sign atomic.Pointer[claim.Sign]
	// refused are the tokens, by their SHA-256, that the platform refused in this boot.
	refused map[[sha256.Size]byte]bool
	// attend runs do and takes a person's commands meanwhile; nil where nobody can type any.
	attend func(ctx context.Context, do func(context.Context) error) error
}

// claimable decides whether the machine asks to be claimed: nothing that it has, neither generations nor credentials, gets it on without.
func (b *boot) claimable(s enroll.Situation) bool {
	return b.unidentified != nil && b.discovered.OnlyTokenMissing() && b.places().Claim() &&
		enroll.Decide(s, enroll.Means{})[0] == enroll.Refuse && len(b.candidates()) == 0
}

// awaitClaim has the machine claimed, if it is to be, for as long as that takes.
func (b *boot) awaitClaim(ctx context.Context) error {
	if !b.claims.wanted || b.persist.ReadOnly {
		return nil
	}
	if err := b.spareToken(); err != nil {
		return err
	}
	if b.uplink == nil {
		// The system's own, or none at all as the settings say: neither gets better by waiting.
		if err := b.needNetwork(ctx); err != nil {
			return err
		}
	}
	defer b.claims.sign.Store(nil)
	if b.claims.attend == nil {
		return b.waitForClaim(ctx)
	}
	return b.claims.attend(ctx, b.waitForClaim)
}

// claimPatience has no end: a machine that nobody has claimed has nothing else to do.
func claimPatience() nodehttp.Backoff {
	return nodehttp.Backoff{First: time.Second, Max: time.Minute}
}

// waitForClaim asks until the machine is claimed, or a token comes from elsewhere, and then knows who it is.
func (b *boot) waitForClaim(ctx context.Context) error {
	// The link with the default route says by what the machine is known.
	if err := claimPatience().Run(ctx, b.notify, b.needNetwork); err != nil {
		return err
	}
	asked := b.discovered
	look := b.claims.look
	if look == nil {
		look = func() claim.Machine { return claim.Look("", "") }
	}
	machine := look()
	machine.AgentVersion, machine.Architecture = version.Get().Version, runtime.GOARCH
	elsewhere, stopLooking := b.lookElsewhere(ctx)
	defer stopLooking()
	claiming, stop := context.WithCancel(ctx)
	defer stop()
	var found *identity.Identity
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case i := <-elsewhere:
			found = &i
			stop()
		case <-claiming.Done():
		}
	})
	got, err := claim.Run(claiming, claim.Options{
		Dir: ClaimDir(b.store.Path()), PlatformURL: asked.PlatformURL, InstanceID: asked.InstanceID, Machine: machine,
		Connect: func(ctx context.Context) (*nodehttp.Conn, error) {
			base, err := Bootstrap(ctx, asked, nodehttp.Backoff{Tries: 1}, nil)
			if err != nil {
				return nil, err
			}
			if len(asked.CAPEM) == 0 {
				asked.CAPEM = base.CAPEM
			}
			return enroll.Connect(ctx, enroll.Options{Clock: judge{b}, HTTP: nodehttp.Options{Now: b.now}}, base)
		},
		Show:    b.showSign,
		Say:     func(format string, args ...any) { b.voice.say("          "+format, args...) },
		Backoff: claimPatience(),
	})
	stop()
	watching.Wait()
	switch {
	case err == nil:
		b.discovered.Token, b.discovered.InstanceID, b.discovered.PlatformURL = got.Token, got.InstanceID, got.PlatformURL
		b.discovered.CAPEM, b.discovered.From.Token = asked.CAPEM, "claim"
	case found != nil && ctx.Err() == nil:
		b.voice.say("          a token was found meanwhile, from %s", found.From.Token)
		b.discovered = *found
	default:
		return err
	}
	b.unidentified, b.claims.wanted = nil, false
	return nil
}

// lookElsewhere asks the sources of identity again and again, and sends the first that suffices.
func (b *boot) lookElsewhere(ctx context.Context) (found <-chan identity.Identity, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	out := make(chan identity.Identity, 1)
	var looking sync.WaitGroup
	looking.Go(func() {
		for tick := time.NewTicker(cmp.Or(b.claims.again, lookAgain)); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
			var i identity.Identity
			_, err := guarded(func() (_ string, err error) { i, err = b.resolve(ctx); return "", err })
			if err == nil {
				tick.Stop()
				out <- i
				return
			}
		}
	})
	return out, func() { cancel(); looking.Wait() }
}

// showSign shows a claim code on the console: drawn, if that is a terminal, and in words, which are in the journal too.
func (b *boot) showSign(s claim.Sign) {
	b.claims.sign.Store(&s)
	for _, l := range s.Draw(claim.SizeOf(b.voice.w)) {
		fmt.Fprintln(b.voice.w, l)
	}
	for _, l := range s.Lines() {
		b.voice.say("%s", l)
	}
}

// settleClaim tells the claim, if there was one, how the enrollment went.
func (b *boot) settleClaim(enrolled error) {
	if err := claim.Settle(ClaimDir(b.store.Path()), enrolled, nil); err != nil {
		b.remark(err.Error(), fault.HintOf(err))
	}
}

// leaveOut has a token that the platform refused count for nothing in the rest of this boot. Else one that was used up long ago, and is
// still in an identity.cfg, would for ever keep the next source's from counting, and the machine from being claimed.
func (b *boot) leaveOut(enrolled error) {
	code := nodehttp.CodeOf(enrolled)
	refused := code == nodeapi.CodeTokenRefused || nodehttp.StatusOf(enrolled) == http.StatusUnprocessableEntity && code != nodeapi.CodeProofOutOfTime
	if !refused || b.discovered.Token.IsZero() {
		return
	}
	if b.claims.refused == nil {
		b.claims.refused = make(map[[sha256.Size]byte]bool)
	}
	b.claims.refused[sha256.Sum256([]byte(b.discovered.Token.Reveal()))] = true
	b.voice.say("          the token from %s is refused; it doesn't count until the next boot", b.discovered.From.Token)
}

// leftOut reports whether leaveOut had it count for nothing.
func (b *boot) leftOut(token secret.Text) bool {
	return b.claims.refused[sha256.Sum256([]byte(token.Reveal()))]
}

// told is the error of a stage that a person ended.
type told struct{ act action }

// Error says what the person said.
func (t *told) Error() string { return "told to " + string(t.act) }

// errClaiming is why a machine waits that waits to be claimed.
var errClaiming = fault.New(fault.Retry, fault.Platform, "accept it by powernode claim accept, or give the machine a bootstrap token",
	"this machine knows its platform, and has no bootstrap token: it waits to be claimed")

// attend runs do, which a person may end by a command of the recovery environment.
func (m *machine) attend(ctx context.Context, do func(context.Context) error) error {
	r := m.environment(ctx, errClaiming)
	if m.terminal == nil {
		return do(ctx)
	}
	defer m.terminal.end()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := guarded(func() (string, error) { return "", do(ctx) })
		done <- err
	}()
	for {
		select {
		case err := <-done:
			return err
		case line := <-r.lines:
			m.typed = time.Now()
			act, ended := r.command(line)
			if ended {
				cancel()
				if err := <-done; err == nil && act == retryBoot {
					return nil // it was claimed at this moment
				}
				return &told{act}
			}
			if word := strings.TrimSpace(line); word == "" || word == "status" {
				if s := m.claims.sign.Load(); s != nil {
					m.showSign(*s)
				}
			}
			r.prompt()
		}
	}
}
