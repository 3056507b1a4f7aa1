package claim_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/identity/claim"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
	"github.com/powernode/powernode-agent/internal/signedtime"
)

// box is a machine with a disk, before a real platform.
type box struct {
	t *testing.T
	p *platformtest.Platform
	console
	dir string
	// waits is called in place of each wait between two polls.
	waits func(b *box) error
	alter func(*claim.Options)
	// claims counts how often the machine asked to be claimed.
	claims int
}

func newBox(t *testing.T, p *platformtest.Platform) *box {
	return &box{t: t, p: p, dir: t.TempDir()}
}

// boot is what a boot does: credentials from the disk, else a claim, else nothing.
func (b *box) boot(ctx context.Context) (*enroll.Credentials, enroll.Situation, error) {
	b.t.Helper()
	caPEM := []byte(b.p.Config.CAPEM)
	o := options(b.dir, b.p.URL, caPEM, &b.console)
	o.Sleep = func(ctx context.Context, _ time.Duration) error {
		if b.waits != nil {
			if err := b.waits(b); err != nil {
				return err
			}
		}
		return ctx.Err()
	}
	if b.alter != nil {
		b.alter(&o)
	}
	c, s, err := enroll.Ensure(ctx, enroll.Options{
		Dir: filepath.Join(b.dir, "pki"), Architecture: "amd64", Backoff: nodehttp.Backoff{Tries: 1},
		Clock: signedtime.Open("", signedtime.Options{}), HTTP: nodehttp.Options{Now: b.p.Clock.Now},
		Discover: func(ctx context.Context) (enroll.Bootstrap, error) {
			b.claims++
			got, err := claim.Run(ctx, o)
			return enroll.Bootstrap{PlatformURL: got.PlatformURL, CAPEM: caPEM, Token: got.Token, InstanceID: got.InstanceID}, err
		},
	})
	if settled := claim.Settle(b.dir, err, nil); settled != nil {
		b.t.Error(settled)
	}
	return c, s, err
}

func (b *box) accept(code string, in operatorapi.ClaimAccept) {
	b.t.Helper()
	if _, err := b.p.Operator.AcceptClaim(b.t.Context(), code, in); err != nil {
		b.t.Error(err)
	}
}

// TestClaimed goes from power-on to a certificate, and checks that the machine never asks again.
func TestClaimed(t *testing.T) {
	p := platformtest.Start(t)
	b := newBox(t, p)
	b.waits = func(b *box) error {
		if len(b.shown) != 1 {
			t.Errorf("shown %v", b.shown)
		}
		b.waits = nil
		b.accept(nodeapi.ShowClaimCode(b.shown[0]), operatorapi.ClaimAccept{Create: "web-1"})
		return nil
	}
	first, s, err := b.boot(t.Context())
	if err != nil || s != enroll.None {
		t.Fatalf("%v, %v", s, err)
	}
	node, err := p.Operator.Node(t.Context(), "web-1")
	if err != nil || node.Node.ID != first.InstanceID || node.Node.Architecture != "amd64" {
		t.Errorf("%+v, %v", node.Node, err)
	}
	if _, err := os.Stat(filepath.Join(b.dir, "claim.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the claim is still on the disk: %v", err)
	}
	p.Stop() // and the platform isn't needed any more
	if again, s, err := b.boot(t.Context()); err != nil || s != enroll.Valid || again.InstanceID != first.InstanceID || b.claims != 1 {
		t.Errorf("%v, %v, %v; asked %d times", again, s, err, b.claims)
	}
}

// TestRebootInTheMiddle switches the machine off while it waits, and again when it was accepted, and when its token was used.
func TestRebootInTheMiddle(t *testing.T) {
	p := platformtest.Start(t)
	b := newBox(t, p)
	off := errors.New("power cut")
	b.waits = func(*box) error { return off }
	for range 2 {
		if _, _, err := b.boot(t.Context()); !errors.Is(err, off) {
			t.Fatal(err)
		}
	}
	if len(b.shown) != 2 || b.shown[0] != b.shown[1] {
		t.Fatalf("shown %v", b.shown)
	}
	b.accept(b.shown[0], operatorapi.ClaimAccept{Create: "web-1"})
	b.waits = nil

	// It gets the token and dies before it enrolls, twice.
	o := options(b.dir, p.URL, []byte(p.Config.CAPEM), &b.console)
	one, err := claim.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	two, err := claim.Run(t.Context(), o)
	if err != nil || one.Token.Equal(two.Token) {
		t.Fatal(err, "or the same token")
	}
	// It uses it, and the answer is lost: the key is on the disk, and the claim is over.
	lost := errors.New("the reply was lost")
	pki := filepath.Join(b.dir, "pki")
	cut := enroll.Options{
		Dir: pki, Architecture: "amd64", Backoff: nodehttp.Backoff{Tries: 1}, HTTP: nodehttp.Options{Now: p.Clock.Now}, Clock: signedtime.Open("", signedtime.Options{}),
		Discover: func(context.Context) (enroll.Bootstrap, error) {
			return enroll.Bootstrap{PlatformURL: p.URL, CAPEM: []byte(p.Config.CAPEM), Token: two.Token, InstanceID: two.InstanceID}, nil
		},
		Hook: func(op string) error {
			if strings.HasPrefix(op, "credentials:") {
				return lost
			}
			return nil
		},
	}
	if _, _, err := enroll.Ensure(t.Context(), cut); !errors.Is(err, lost) {
		t.Fatal(err)
	}
	c, s, err := b.boot(t.Context())
	if err != nil || c.InstanceID != two.InstanceID || s != enroll.KeyOnly {
		t.Fatalf("%v, %v", s, err)
	}
	if certs, err := p.Operator.Node(t.Context(), "web-1"); err != nil || len(certs.Certificates) != 1 {
		t.Errorf("%+v, %v", certs.Certificates, err)
	}
}

// TestOutages has the platform away for a while, restarted, and answering 500.
func TestOutages(t *testing.T) {
	p := platformtest.Start(t)
	b := newBox(t, p)
	turn := 0
	b.alter = func(o *claim.Options) {
		o.Backoff.Tries = 0
		say := o.Say
		o.Say = func(format string, args ...any) {
			// The first failure that is said brings the platform back.
			if say(format, args...); turn == 1 {
				turn++
				b.p = b.p.Restart()
			}
		}
	}
	b.waits = func(b *box) error {
		switch turn++; turn {
		case 1:
			p.Stop()
		case 3:
			b.accept(b.shown[0], operatorapi.ClaimAccept{Create: "web-1"})
		}
		return nil
	}
	c, _, err := b.boot(t.Context())
	if err != nil || c == nil || turn != 3 {
		t.Fatalf("%v, after turn %d", err, turn)
	}
	for _, code := range b.shown {
		if code != b.shown[0] {
			t.Errorf("shown %v", b.shown)
		}
	}
}

// TestForgotten has the machine wait on while its claim ends, and another one with its MAC be accepted.
func TestForgotten(t *testing.T) {
	p := platformtest.Start(t)
	b, thief := newBox(t, p), newBox(t, p)
	off := errors.New("switched off")
	b.waits = func(*box) error { return off }
	thief.waits = b.waits
	for _, m := range []*box{b, thief} {
		if _, _, err := m.boot(t.Context()); !errors.Is(err, off) {
			t.Fatal(err)
		}
	}
	if b.shown[0] == thief.shown[0] {
		t.Fatal("two machines with one MAC show one code")
	}
	p.Clock.Advance(25 * time.Hour)
	if _, _, err := b.boot(t.Context()); !errors.Is(err, off) || b.shown[1] == b.shown[0] {
		t.Fatalf("%v, shown %v", err, b.shown)
	}
	b.accept(b.shown[1], operatorapi.ClaimAccept{Create: "web-1"})
	if _, _, err := thief.boot(t.Context()); !errors.Is(err, off) {
		t.Errorf("the other machine: %v", err)
	}

	// Rejected, and accepted after all.
	if _, err := p.Operator.RejectClaim(t.Context(), b.shown[1]); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.boot(t.Context()); !errors.Is(err, off) || !strings.Contains(strings.Join(b.said, "\n"), "the operator rejected this machine's claim") {
		t.Errorf("%v, %q", err, b.said)
	}
	b.accept(b.shown[1], operatorapi.ClaimAccept{Node: "web-1"})
	if _, _, err := b.boot(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestTokenRefused has the platform refuse the token that a machine kept: it asks for another.
func TestTokenRefused(t *testing.T) {
	p := platformtest.Start(t)
	b := newBox(t, p)
	accepted := 0
	b.waits = func(b *box) error {
		if accepted < len(b.shown) {
			b.accept(b.shown[accepted], operatorapi.ClaimAccept{Create: fmt.Sprintf("web-%d", accepted)})
			accepted++
		}
		return nil
	}
	got, err := claim.Run(t.Context(), func() claim.Options {
		o := options(b.dir, p.URL, []byte(p.Config.CAPEM), &b.console)
		o.Sleep = func(context.Context, time.Duration) error { return b.waits(b) }
		return o
	}())
	if err != nil {
		t.Fatal(err)
	}
	// Somebody else uses it up, by another key.
	p.Do(nil, http.MethodPost, nodeapi.PathEnroll, nodeapi.EnrollRequest{BootstrapToken: got.Token.Reveal(), CSRPEM: p.CSR(p.Key())}).Into(&nodeapi.EnrollResponse{})
	if _, _, err := b.boot(t.Context()); err == nil || nodehttp.CodeOf(err) != nodeapi.CodeTokenRefused {
		t.Fatal(err)
	}
	c, _, err := b.boot(t.Context())
	if err != nil || c.InstanceID == got.InstanceID || len(b.shown) != 2 {
		t.Errorf("%v, %v, shown %v", c, err, b.shown)
	}
}

// TestLostReplies loses ten answers in a row before the code, and ten with a token each.
func TestLostReplies(t *testing.T) {
	p := platformtest.Start(t)
	ca := pkitest.NewCA(t, "Between")
	lose, client := 10, p.Client(nil)
	between := ca.Serve(ca.Web(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req, err := http.NewRequestWithContext(r.Context(), r.Method, p.URL+r.URL.Path, r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		if lose--; lose >= 0 {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(resp.StatusCode)
		if _, err := io.Copy(w, resp.Body); err != nil {
			t.Error(err)
		}
	}), nil)
	var c console
	o := options(t.TempDir(), between.URL, ca.PEM(), &c)
	o.Sleep = func(context.Context, time.Duration) error {
		lose = 10
		_, err := p.Operator.AcceptClaim(t.Context(), c.shown[0], operatorapi.ClaimAccept{Create: "web-1"})
		return err
	}
	got, err := claim.Run(t.Context(), o)
	if err != nil || len(c.shown) != 1 {
		t.Fatalf("%v, shown %v", err, c.shown)
	}
	p.Do(nil, http.MethodPost, nodeapi.PathEnroll, nodeapi.EnrollRequest{BootstrapToken: got.Token.Reveal(), CSRPEM: p.CSR(p.Key())}).Into(&nodeapi.EnrollResponse{})
	if list, err := p.Operator.Claims(t.Context()); err != nil || list.Count != 1 || list.Claims[0].State != operatorapi.ClaimDone {
		t.Errorf("%+v, %v", list, err)
	}
}
