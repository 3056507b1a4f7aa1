package boot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/identity/claim"
	"github.com/powernode/powernode-agent/internal/identity/places"
	"github.com/powernode/powernode-agent/internal/network"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// TestAwait checks that what a stage waits for has no deadline, and counts as the stage.
func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ran := 0
		m, _ := fakeMachine(io.Discard, Stage{"enroll", time.Minute, func(context.Context) (string, error) { ran++; return "", nil }})
		var awaited error
		m.course.await["enroll"] = func(ctx context.Context) error {
			if _, limited := ctx.Deadline(); limited {
				t.Error("a deadline counts")
			}
			time.Sleep(24 * time.Hour)
			if errors.Is(awaited, errClaiming) {
				panic("a defect")
			}
			return awaited
		}
		if err := m.course.run(t.Context(), 0); err != nil || ran != 1 {
			t.Errorf("%v, ran %d times", err, ran)
		}
		for _, awaited = range []error{&told{rebootNow}, errClaiming} {
			if err := m.course.run(t.Context(), 0); err == nil || stageOf(err) != "enroll" || ran != 1 {
				t.Errorf("%v, ran %d times", err, ran)
			}
		}
	})
}

// attended is a machine that waits to be claimed, and whose console a person types at.
func attended(t *testing.T, wait func(ctx context.Context) error) (m *machine, downs *[]action, console *consoleBuffer, typed func(string)) {
	t.Helper()
	console = &consoleBuffer{}
	ran := func(context.Context) (string, error) { return "", nil }
	m, downs = fakeMachine(console, Stage{"identify", time.Minute, ran}, Stage{"enroll", time.Minute, ran})
	lines := make(chan string)
	m.console = func() *terminal { return &terminal{in: unwaitable{}, lines: lines} }
	m.course.await["enroll"] = func(ctx context.Context) error { return m.claims.attend(ctx, wait) }
	return m, downs, console, func(line string) { lines <- line; synctest.Wait() }
}

func TestAttend(t *testing.T) {
	over := errors.New("handed over")
	t.Run("claimed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			claimed := make(chan struct{})
			var m *machine
			m, _, console, typed := attended(t, func(context.Context) error {
				m.showSign(claim.Sign{Code: "ABCDEFGH", PlatformURL: "https://p"})
				<-claimed
				return nil
			})
			m.switchTo = func() error { cancel(); return over }
			go func() {
				typed("help")
				typed("")
				typed("node")
				typed("status")
				close(claimed)
			}()
			if err := m.run(ctx); !errors.Is(err, over) {
				t.Error(err)
			}
			for want, times := range map[string]int{"ABCD-EFGH --node NODE": 3, "poweroff": 1, "it waits to be claimed": 1, "it isn't known who this machine is": 1} {
				if strings.Count(console.String(), want) != times {
					t.Errorf("%q isn't there %d times in\n%s", want, times, console)
				}
			}
		})
	})
	t.Run("retry, then reboot", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			waits := 0
			m, downs, console, typed := attended(t, func(ctx context.Context) error { waits++; <-ctx.Done(); return ctx.Err() })
			go func() { typed("retry"); typed("reboot") }()
			_ = m.run(t.Context())
			if len(*downs) != 1 || (*downs)[0] != rebootNow || waits != 2 || strings.Count(console.String(), "identify") != 2 {
				t.Errorf("%v, waited %d times\n%s", *downs, waits, console)
			}
		})
	})
	t.Run("interrupted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			m, downs, _, _ := attended(t, func(ctx context.Context) error { cancel(); <-ctx.Done(); return ctx.Err() })
			_ = m.run(ctx)
			if len(*downs) != 1 {
				t.Error(*downs)
			}
		})
	})
	t.Run("a defect", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m, downs, console, typed := attended(t, func(context.Context) error { panic("a defect") })
			go func() { time.Sleep(time.Second); typed("poweroff") }() // in the recovery environment
			_ = m.run(t.Context())
			if len(*downs) != 1 || (*downs)[0] != powerOff || !strings.Contains(console.String(), "internal error: a defect") {
				t.Errorf("%v\n%s", *downs, console)
			}
		})
	})
}

// claiming is a boot that waits to be claimed by a real platform.
func claiming(t *testing.T, p *platformtest.Platform, file string) (*boot, *consoleBuffer) {
	t.Helper()
	console := &consoleBuffer{}
	b := newBoot(Config{Console: console, Now: time.Now, Namespace: true, Places: places.Places{IdentityFile: file, Only: []string{"claim"}}})
	b.persistDir = t.TempDir()
	if err := b.openStore(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.closeStore)
	b.openClock()
	b.claims.look = func() claim.Machine { return claim.Machine{MAC: "52:54:00:12:34:56"} }
	b.discovered = identity.Identity{PlatformURL: p.URL, CAPEM: []byte(p.Config.CAPEM)}
	b.unidentified = errors.New("no bootstrap token")
	return b, console
}

// shownCode waits for the code on a console.
func shownCode(t *testing.T, console *consoleBuffer) string {
	t.Helper()
	for {
		if _, rest, ok := strings.Cut(console.String(), "powernode claim accept "); ok && len(rest) > 9 {
			return rest[:9]
		}
		select {
		case <-t.Context().Done():
			t.Fatal("no code on the console")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestClaimAtAPlatform(t *testing.T) {
	p := platformtest.Start(t)
	b, console := claiming(t, p, "/nonexistent")
	if !b.claimable(enroll.None) || !b.claimable(enroll.Revoked) || b.claimable(enroll.Expired) {
		t.Error("who may be claimed")
	}
	// The operator is faster than the first poll's pace: what is asked for again comes at a restart.
	ctx, off := context.WithCancel(t.Context())
	b.claims.wanted = true
	done := make(chan error, 1)
	go func() { done <- b.awaitClaim(ctx) }()
	code := shownCode(t, console)
	off()
	if err := <-done; !errors.Is(err, context.Canceled) || !b.claims.wanted {
		t.Fatal(err)
	}
	if _, err := p.Operator.AcceptClaim(t.Context(), code, operatorapi.ClaimAccept{Create: "web-1"}); err != nil {
		t.Fatal(err)
	}
	if err := b.awaitClaim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b.discovered.Token.IsZero() || b.discovered.InstanceID == "" || b.unidentified != nil || b.claims.wanted || b.discovered.From.Token != "claim" {
		t.Errorf("%+v", b.discovered)
	}
	if strings.Contains(console.String(), b.discovered.Token.Reveal()) {
		t.Error("the token is on the console")
	}
	path := filepath.Join(ClaimDir(b.store.Path()), "claim.json")
	if b.settleClaim(errors.New("no network")); !exists(path) {
		t.Error("the claim is forgotten")
	}
	if b.settleClaim(nil); exists(path) {
		t.Error("the claim is still there")
	}
}

// lateNetwork isn't there the first time.
type lateNetwork struct {
	slowNetwork
	waits *int
}

func (n lateNetwork) Wait(context.Context) (network.State, error) {
	if *n.waits++; *n.waits == 1 {
		return n.State(), fault.New(fault.Retry, fault.Platform, "plug it in", "no link has a carrier")
	}
	return n.State(), nil
}

// TestClaimWithoutAnybody begins where there is no network yet, and nobody who gives the CA's certificate, of which the fingerprint is known.
func TestClaimWithoutAnybody(t *testing.T) {
	p := platformtest.Start(t)
	b, console := claiming(t, p, "/nonexistent")
	block, _ := pem.Decode([]byte(p.Config.CAPEM))
	sum := sha256.Sum256(block.Bytes)
	b.discovered.CAPEM, b.discovered.CASHA256 = nil, []string{hex.EncodeToString(sum[:])}
	waits := 0
	b.claims.wanted, b.uplink = true, lateNetwork{waits: &waits}
	p.Stop()
	done := make(chan error, 1)
	ctx, off := context.WithCancel(t.Context())
	go func() { done <- b.awaitClaim(ctx) }()
	for !strings.Contains(console.String(), "asking again in") {
		select {
		case err := <-done:
			t.Fatal(err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	if waits != 2 || !strings.Contains(console.String(), "no link has a carrier; trying again in") {
		t.Errorf("waited %d times\n%s", waits, console)
	}
	p = p.Restart()
	code := shownCode(t, console)
	off() // what is asked for again comes at a restart, without the platform's pace
	<-done
	if _, err := p.Operator.AcceptClaim(t.Context(), code, operatorapi.ClaimAccept{Create: "web-1"}); err != nil {
		t.Fatal(err)
	}
	if err := b.awaitClaim(t.Context()); err != nil || b.discovered.Token.IsZero() || string(b.discovered.CAPEM) != p.Config.CAPEM {
		t.Errorf("%v, %+v", err, b.discovered)
	}
}

// TestTokenFromElsewhere puts a token where the boot looks while the machine waits to be claimed.
func TestTokenFromElsewhere(t *testing.T) {
	p := platformtest.Start(t)
	if _, err := p.Operator.CreateNode(t.Context(), operatorapi.NodeCreate{Name: "web-1"}); err != nil {
		t.Fatal(err)
	}
	token, err := p.Operator.CreateToken(t.Context(), "web-1", operatorapi.TokenCreate{})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "identity.cfg")
	b, console := claiming(t, p, file)
	b.claims.wanted, b.claims.again = true, 5*time.Millisecond
	done := make(chan error, 1)
	go func() { done <- b.awaitClaim(t.Context()) }()
	shownCode(t, console)
	text := "SERVER=" + p.URL + "\nCA_PEM='" + p.Config.CAPEM + "'\nKEY=" + token.Token + "\n"
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || b.discovered.Token.Reveal() != token.Token || b.unidentified != nil || b.claims.wanted {
		t.Errorf("%v, %+v\n%s", err, b.discovered, console)
	}
}

// TestUsedToken boots a machine whose identity.cfg has a token that another used: it asks to be claimed, and a good token counts that is
// there beside the used one.
func TestUsedToken(t *testing.T) {
	p := platformtest.Start(t)
	file := filepath.Join(t.TempDir(), "identity.cfg")
	write := func(token string) {
		t.Helper()
		text := "ID=11111111-2222-4333-8444-555555555555\nSERVER=" + p.URL + "\nCA_PEM='" + p.Config.CAPEM + "'\nKEY=" + token + "\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("used-long-ago-0123456789")
	b, console := claiming(t, p, file)
	b.config.Trust = filepath.Join(trustDir(t, "trust.yaml"), "trust.yaml")
	resolve := func() {
		b.discovered, b.unidentified = b.resolve(t.Context())
		b.claims.wanted = b.claimable(enroll.None)
	}
	resolve()
	if b.unidentified != nil || b.claims.wanted {
		t.Fatal(b.unidentified)
	}
	if _, err := b.enroll(t.Context()); nodehttp.CodeOf(err) != nodeapi.CodeTokenRefused {
		t.Fatal(err)
	}
	if out := console.String(); !strings.Contains(out, "is refused; it doesn't count") || strings.Contains(out, "used-long-ago") {
		t.Error(out)
	}
	resolve()
	if !b.claims.wanted || b.discovered.InstanceID != "" || !strings.Contains(b.unidentified.Error(), "the platform refused it") {
		t.Errorf("%+v, %v", b.discovered, b.unidentified)
	}
	write("another-token-0123456789")
	if resolve(); b.unidentified != nil || b.claims.wanted || b.discovered.InstanceID == "" {
		t.Errorf("%+v, %v", b.discovered, b.unidentified)
	}
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }
