package nodeapitest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/identity/places"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodeclient"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
	"github.com/powernode/powernode-agent/internal/runtime"
)

const day = 24 * time.Hour

// platformTime is a clock that always knows the platform's time.
type platformTime struct{ *platformtest.Clock }

func (platformTime) Judges() bool { return true }
func (platformTime) Due() bool    { return false }

func (platformTime) Ask(context.Context, *nodehttp.Material, nodehttp.Options) error { return nil }

// living is a node that serves.
type living struct {
	*node
	keeper *enroll.Keeper
	client *nodeclient.Client
}

func newLiving(t *testing.T, p *platformtest.Platform, name string) *living {
	t.Helper()
	l := &living{node: newNode(t, p, name)}
	if _, _, err := l.ensure(nil); err != nil {
		t.Fatal(err)
	}
	l.restart(nil)
	l.ok(l.beat())
	return l
}

func (l *living) ok(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *living) options() enroll.Options {
	return enroll.Options{
		Dir: l.pki, AgentVersion: "v0-test", Architecture: "amd64", Clock: platformTime{l.platform.Clock}, Backoff: nodehttp.Backoff{Tries: 1},
	}
}

// ensure is the beginning of a boot.
func (l *living) ensure(alter func(*enroll.Options)) (*enroll.Credentials, enroll.Situation, error) {
	o := l.options()
	o.Discover = func(context.Context) (enroll.Bootstrap, error) { return l.bootstrap(l.t.Context()) }
	if alter != nil {
		alter(&o)
	}
	return enroll.Ensure(l.t.Context(), o)
}

func (l *living) bootstrap(ctx context.Context) (enroll.Bootstrap, error) {
	i, _, err := identity.Resolver{Sources: places.Places{IdentityFile: l.cfg}.Sources()}.Resolve(ctx)
	return enroll.Bootstrap{PlatformURL: i.PlatformURL, CAPEM: i.CAPEM, Token: i.Token, InstanceID: i.InstanceID}, err
}

// restart begins a new service.
func (l *living) restart(hook durable.Hook) {
	l.t.Helper()
	o := l.options()
	o.Hook = hook
	l.keeper = enroll.NewKeeper(o)
	client, err := nodeclient.New(nodeclient.Config{
		Credentials: l.keeper, Heard: l.keeper.Heard, Prepare: l.keeper.Prepare, HTTP: nodehttp.Options{Now: l.keeper.Now},
	})
	l.ok(err)
	l.client = client
	l.t.Cleanup(client.Close)
}

func (l *living) beat() error {
	_, err := l.heartbeat()
	return err
}

func (l *living) heartbeat() (*nodeapi.HeartbeatResponse, error) {
	return l.client.Heartbeat(l.t.Context(), nodeapi.Heartbeat{
		BootID: "4f4cf2e7-6a6a-4e6e-9d44-2f3f5a3c1b10", AgentVersion: "v0-test", Architecture: "amd64", MountState: nodeapi.MountUnmounted,
		CABundleSHA256: l.status().CABundleSHA256,
	})
}

func (l *living) status() enroll.Status {
	l.t.Helper()
	s, err := l.keeper.Status()
	l.ok(err)
	return s
}

// TestALongLife rotates for two years, and each certificate ends the one before.
func TestALongLife(t *testing.T) {
	p := platformtest.Start(t)
	l := newLiving(t, p, "web-1")
	seen := map[string]bool{l.status().Serial: true}
	for range 8 {
		s := l.status()
		p.Clock.Advance(s.RotateAt.Sub(p.Clock.Now()))
		if got := l.status().Situation; got != enroll.Expiring {
			t.Fatalf("when it is due: %v", got)
		}
		l.ok(l.keeper.Rotate(t.Context()))
		if now := l.status(); seen[now.Serial] || !now.Unused || now.Situation != enroll.Valid {
			t.Fatalf("%+v", now)
		}
		l.ok(l.beat())
		if now := l.status(); now.Unused {
			t.Fatalf("%+v", now)
		}
		seen[l.status().Serial] = true
	}
}

// TestLostAnswers loses what the platform answered ten times in a row, each in a process of its own.
func TestLostAnswers(t *testing.T) {
	p := platformtest.Start(t)
	lost := errors.New("the power failed")
	for name, replace := range map[string]func(*enroll.Keeper, context.Context) error{"rotate": (*enroll.Keeper).Rotate, "renew": (*enroll.Keeper).Renew} {
		t.Run(name, func(t *testing.T) {
			l := newLiving(t, p, "lossy-"+name)
			first := l.status().Serial
			if name == "renew" {
				p.Clock.Advance(91 * day)
			}
			for range 10 {
				l.restart(func(op string) error {
					if op == "credentials:create" {
						return lost
					}
					return nil
				})
				if err := replace(l.keeper, t.Context()); !errors.Is(err, lost) || l.status().Serial != first {
					t.Fatal(err)
				}
			}
			l.restart(nil)
			l.ok(replace(l.keeper, t.Context()))
			l.ok(l.beat())
			detail, err := p.Operator.Node(t.Context(), l.name)
			l.ok(err)
			if n := len(detail.Certificates); n != 2 {
				t.Errorf("%d certificates", n)
			}
		})
	}
}

// fast is a machine's own clock that is an hour ahead.
type fast struct{ platformTime }

func (f fast) Now() time.Time { return f.platformTime.Now().Add(time.Hour) }

// TestExpiredByAWrongClock: a node that goes by its own clock renews once that is right, and says so until then.
func TestExpiredByAWrongClock(t *testing.T) {
	p := platformtest.Start(t)
	l := newLiving(t, p, "web-1")
	p.Clock.Advance(100 * day)
	local := true
	_, was, err := l.ensure(func(o *enroll.Options) {
		o.Discover, o.LocalClock, o.Clock = nil, &local, fast{platformTime{p.Clock}}
	})
	if was != enroll.Expired || nodehttp.CodeOf(err) != nodeapi.CodeProofOutOfTime || !strings.Contains(fault.HintOf(err), "set this machine's clock") {
		t.Fatalf("%v, %v (hint %q)", was, err, fault.HintOf(err))
	}
	if _, was, err := l.ensure(func(o *enroll.Options) { o.Discover = nil }); err != nil || was != enroll.Expired {
		t.Fatalf("%v, %v", was, err)
	}
	l.ok(l.beat())
}

// TestExpiredWhileOff comes back by itself within the platform's days, and by an operator's word after them.
func TestExpiredWhileOff(t *testing.T) {
	p := platformtest.Start(t)
	l := newLiving(t, p, "web-1")
	none := func(o *enroll.Options) { o.Discover = nil }
	p.Clock.Advance(100 * day)
	if c, was, err := l.ensure(none); err != nil || was != enroll.Expired {
		t.Fatalf("%v, %v, %v", c, was, err)
	}
	l.ok(l.beat())

	p.Clock.Advance(365 * day)
	_, was, err := l.ensure(none)
	w := enroll.AsWaiting(err)
	if was != enroll.Expired || w == nil || !strings.Contains(w.Message, "powernode node approve web-1") {
		t.Fatalf("%v, %v", was, err)
	}
	if _, err := p.Operator.ApproveNode(t.Context(), "web-1", operatorapi.ApproveRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.ensure(none); err != nil {
		t.Fatal(err)
	}
	l.ok(l.beat())
	if got := l.status().Situation; got != enroll.Valid {
		t.Errorf("%v", got)
	}

	p.Clock.Advance(365 * day)
	_, _, err = l.ensure(none)
	if enroll.AsWaiting(err) == nil {
		t.Fatal(err)
	}
	if _, err := p.Operator.ApproveNode(t.Context(), "web-1", operatorapi.ApproveRequest{Deny: true}); err != nil {
		t.Fatal(err)
	}
	if _, _, err = l.ensure(none); nodehttp.CodeOf(err) != nodeapi.CodeRenewalRefused || !strings.Contains(fault.HintOf(err), "token create") {
		t.Errorf("denied: %v (hint %q)", err, fault.HintOf(err))
	}
	// A new token always does.
	l.write(l.token())
	if _, was, err := l.ensure(nil); err != nil || was != enroll.Expired {
		t.Fatalf("%v, %v", was, err)
	}
	l.ok(l.beat())
}

// TestRevoked is known to the next start, and ends by a token.
func TestRevoked(t *testing.T) {
	p := platformtest.Start(t)
	l := newLiving(t, p, "web-1")
	if _, err := p.Operator.RevokeNode(t.Context(), "web-1", operatorapi.RevokeRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := l.beat(); nodehttp.CodeOf(err) != nodeapi.CodeCertificateRevoked {
		t.Fatal(err)
	}
	l.restart(nil)
	if got := l.status().Situation; got != enroll.Revoked {
		t.Errorf("%v", got)
	}
	if err := l.keeper.Renew(t.Context()); nodehttp.CodeOf(err) != nodeapi.CodeCertificateRevoked {
		t.Errorf("%v", err)
	}
	l.write(l.token())
	if _, was, err := l.ensure(nil); err != nil || was != enroll.Revoked {
		t.Fatalf("%v, %v", was, err)
	}
	l.ok(l.beat())
}

// TestRestoredFromABackup brings old credentials back: an operator is to say that this is the node.
func TestRestoredFromABackup(t *testing.T) {
	p := platformtest.Start(t)
	l := newLiving(t, p, "web-1")
	file := filepath.Join(l.pki, "credentials.json")
	backup, err := os.ReadFile(file)
	l.ok(err)
	l.ok(l.keeper.Rotate(t.Context()))
	l.ok(l.beat())
	l.ok(os.WriteFile(file, backup, 0o600))
	l.restart(nil)
	if err := l.beat(); nodehttp.CodeOf(err) != nodeapi.CodeCertificateSuperseded {
		t.Fatal(err)
	}
	l.restart(nil)
	if got := l.status().Situation; got != enroll.Superseded {
		t.Errorf("%v", got)
	}
	if err := l.keeper.Renew(t.Context()); enroll.AsWaiting(err) == nil {
		t.Fatal(err)
	}
	if _, err := p.Operator.ApproveNode(t.Context(), "web-1", operatorapi.ApproveRequest{}); err != nil {
		t.Fatal(err)
	}
	l.ok(l.keeper.Renew(t.Context()))
	l.ok(l.beat())
}

// TestTheCARolls takes a node through it that serves, and one that is off from before it begins until it has signed
// for a while.
func TestTheCARolls(t *testing.T) {
	p := platformtest.Start(t)
	serving, off := newLiving(t, p, "serving"), newLiving(t, p, "off")
	follow := func(l *living) {
		t.Helper()
		answer, err := l.heartbeat()
		l.ok(err)
		if answer.CABundleSHA256 != l.status().CABundleSHA256 {
			l.ok(l.keeper.AdoptCA(t.Context()))
		}
		if answer.CABundleSHA256 != l.status().CABundleSHA256 {
			t.Errorf("the bundle is %s, not %s", l.status().CABundleSHA256, answer.CABundleSHA256)
		}
		if answer.Refresh {
			l.ok(l.keeper.Rotate(t.Context()))
		}
		l.ok(l.beat())
	}
	follow(serving)
	if _, err := p.Operator.PrepareCA(t.Context()); err != nil {
		t.Fatal(err)
	}
	follow(serving)
	if _, err := p.Operator.ActivateCA(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := serving.status().Serial
	follow(serving)
	if serving.status().Serial == before {
		t.Error("the certificate is still the old authority's")
	}
	p.Clock.Advance(30 * day)
	follow(off)
	follow(off)
	follow(serving)
	if _, err := p.Operator.RetireCA(t.Context(), operatorapi.CARetire{}); err != nil {
		t.Fatal(err)
	}
	for _, l := range []*living{serving, off} {
		follow(l)
		follow(l)
		if got := l.status(); got.Situation != enroll.Valid {
			t.Errorf("%v", got)
		}
	}
}

// TestServiceAfterALongSleep serves with a certificate that ended while the node was off: the service renews it by
// itself.
func TestServiceAfterALongSleep(t *testing.T) {
	p := platformtest.Start(t)
	l := newLiving(t, p, "sleeper")
	first := l.status().Serial
	p.Clock.Advance(100 * day)
	l.restart(nil)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- runtime.New(runtime.Config{
			Platform: l.client, State: fixed{Mount: nodeapi.MountUnmounted}, Certificate: runtime.NewCertificate(l.keeper, nil), AgentVersion: "v0-test", Architecture: "amd64",
		}).Run(ctx)
	}()
	for l.status().Serial == first {
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	l.ok(l.beat())
}
