package enroll

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/secret"
)

// ended returns the options of a node whose certificate has ended while it was off.
func ended(t *testing.T, p *platform) (Options, *Credentials) {
	t.Helper()
	dir := t.TempDir()
	old := expire(t, p, dir)
	o := p.options(dir)
	o.HTTP.Now = func() time.Time { return old.Leaf.NotAfter.Add(time.Second) }
	o.Discover = nil
	return o, old
}

func TestRenewWithoutAToken(t *testing.T) {
	p := newPlatform(t)
	p.policy = nodeapi.RenewIssued
	o, old := ended(t, p)
	c, was, err := Ensure(t.Context(), o)
	if err != nil || was != Expired || c.Leaf.Equal(old.Leaf) || c.InstanceID != old.InstanceID || c.previous == nil {
		t.Fatalf("%v, %v, %v", c, was, err)
	}
	if again, was, err := Ensure(t.Context(), o); err != nil || was != Valid || !again.Leaf.Equal(c.Leaf) || p.asked != 1 {
		t.Errorf("again: %v, %v, %d requests", was, err, p.asked)
	}
}

func TestRenewalWaits(t *testing.T) {
	p := newPlatform(t)
	p.policy = nodeapi.RenewWaiting
	o, old := ended(t, p)
	var told []string
	o.Waits = func(w *Waiting) { told = append(told, w.Message) }
	_, was, err := Ensure(t.Context(), o)
	w := AsWaiting(err)
	if was != Expired || w == nil || fault.KindOf(err) != fault.Retry || w.Again != minPoll || strings.Contains(err.Error(), "\n") {
		t.Fatalf("%v, %v", was, err)
	}
	if len(told) != 1 || told[0] != "powernode node approve web-1" {
		t.Errorf("told %q", told)
	}
	if s, err := Inspect(o.Dir, Wish{}, o.now()); err != nil || s.Situation != Expired || !s.Credentials.Leaf.Equal(old.Leaf) {
		t.Errorf("meanwhile: %v, %v", s.Situation, err)
	}
	// Who wants to wait does, until an operator has decided.
	o.Wait, o.after = true, func(d time.Duration) <-chan time.Time {
		if d != minPoll {
			t.Errorf("it waits for %s", d)
		}
		return time.After(time.Millisecond)
	}
	o.Waits = func(*Waiting) { go p.set(func() { p.policy = nodeapi.RenewIssued }) }
	c, _, err := Ensure(t.Context(), o)
	if err != nil || c.Leaf.Equal(old.Leaf) || len(p.byKey) != 1 {
		t.Errorf("%v, %v, %d certificates", c, err, len(p.byKey))
	}
	p = newPlatform(t)
	p.policy = nodeapi.RenewWaiting
	o, _ = ended(t, p)
	o.Wait = true
	ctx, cancel := context.WithCancel(t.Context())
	o.Waits = func(*Waiting) { cancel() }
	if _, _, err := Ensure(ctx, o); AsWaiting(err) == nil {
		t.Errorf("cancelled: %v", err)
	}
}

// TestRenewalAndTokens has each try the other where it is refused.
func TestRenewalAndTokens(t *testing.T) {
	withToken := func(p *platform, which string) func(context.Context) (Bootstrap, error) {
		return func(context.Context) (Bootstrap, error) {
			b := p.bootstrap()
			b.Token = secret.New(which)
			return b, nil
		}
	}
	for _, c := range []struct {
		name             string
		policy           nodeapi.RenewStatus
		token            string // "" for none
		given            bool
		enrolls, renewed bool
		err              string
	}{
		{name: "refused, no token", err: "403 RENEWAL_REFUSED"},
		{name: "refused, a used token is found", token: token + "-other", err: "422 TOKEN_REFUSED"},
		{name: "refused, a token is found", token: token + "-new", enrolls: true},
		{name: "issued, a token is found", policy: nodeapi.RenewIssued, token: token + "-new", renewed: true},
		{name: "issued, a token is given", policy: nodeapi.RenewIssued, token: token + "-new", given: true, enrolls: true},
		{name: "issued, a used token is given", policy: nodeapi.RenewIssued, token: token + "-other", given: true, renewed: true},
		{name: "waits, a token is found", policy: nodeapi.RenewWaiting, token: token + "-new", enrolls: true},
		{name: "waits, a used token is found", policy: nodeapi.RenewWaiting, token: token + "-other", err: "waits for an operator"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlatform(t)
			p.policy = c.policy
			p.keys[token+"-other"] = "another key"
			o, _ := ended(t, p)
			if c.token != "" {
				o.Discover, o.Given = withToken(p, c.token), c.given
			}
			n := len(p.grants)
			got, was, err := Ensure(t.Context(), o)
			if was != Expired || (err == nil) != (c.err == "") {
				t.Fatalf("%v, %v, %v", got, was, err)
			}
			if err != nil && (!strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "\n") || fault.HintOf(err) == "") {
				t.Errorf("%v (hint %q)", err, fault.HintOf(err))
			}
			if enrolled := len(p.grants) > n; enrolled != c.enrolls || (len(p.byKey) > 0) != c.renewed {
				t.Errorf("enrolled %v, renewed %v", enrolled, len(p.byKey) > 0)
			}
		})
	}
}

// TestRevokedNeverRenews wants a token, also after a restart, and takes one.
func TestRevokedNeverRenews(t *testing.T) {
	s := newService(t, newPlatform(t))
	s.p.set(func() { s.p.policy = nodeapi.RenewIssued })
	s.refuse(s.serial(), nodeapi.CodeCertificateRevoked)
	_ = s.beat()
	o := s.p.options(s.dir)
	o.Discover = nil
	_, was, err := Ensure(t.Context(), o)
	if was != Revoked || fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), "revoked") || !strings.Contains(fault.HintOf(err), "token create") || s.p.asked != 0 {
		t.Fatalf("%v, %v, %d requests", was, err, s.p.asked)
	}
	if err := s.keeper.Renew(t.Context()); nodehttp.CodeOf(err) != nodeapi.CodeCertificateRevoked {
		t.Errorf("%v", err)
	}
	o.Discover = func(context.Context) (Bootstrap, error) {
		b := s.p.bootstrap()
		b.Token = secret.New(token + "-new")
		return b, nil
	}
	if _, was, err := Ensure(t.Context(), o); err != nil || was != Revoked {
		t.Fatalf("%v, %v", was, err)
	}
	s.ok(s.beat())
	if got := s.status().Situation; got != Valid {
		t.Errorf("%v", got)
	}
}

// TestCertificateUnknown: a platform that doesn't know a certificate any more, and says no more than that, takes a token that a
// person gives.
func TestCertificateUnknown(t *testing.T) {
	s := newService(t, newPlatform(t))
	serial := s.serial()
	s.refuse(serial, "")
	_ = s.beat()
	o := s.p.options(s.dir)
	o.Now, o.Given = true, true
	o.Discover = func(context.Context) (Bootstrap, error) {
		b := s.p.bootstrap()
		b.Token = secret.New(token + "-new")
		return b, nil
	}
	if _, was, err := Ensure(t.Context(), o); err != nil || was != Valid {
		t.Fatalf("%v, %v", was, err)
	}
	s.ok(s.beat())
	if s.serial() == serial || s.last() != s.serial() {
		t.Errorf("%s, and the platform saw %s", s.serial(), s.last())
	}
}

// clock is a clock that a platform sets.
type clock struct {
	wall, signed time.Time
	judges       bool
	fail         error
	asked        int
}

func (c *clock) Now() time.Time {
	if c.judges {
		return c.signed
	}
	return c.wall
}
func (c *clock) Judges() bool { return c.judges }
func (c *clock) Due() bool    { return !c.judges }

func (c *clock) Ask(context.Context, *nodehttp.Material, nodehttp.Options) error {
	c.asked++
	if c.fail == nil {
		c.judges = true
	}
	return c.fail
}

// stopped is a clock that stood still, and is set once it is in doubt.
type stopped struct{ *clock }

func (s stopped) Doubt() { s.judges = false }

func (s stopped) Ask(ctx context.Context, m *nodehttp.Material, o nodehttp.Options) error {
	s.signed = s.wall
	return s.clock.Ask(ctx, m, o)
}

// TestProofOfAnotherTime: a proof is of the moment in which it is sent. One that the platform finds to be of another costs
// neither the key that waits nor, where the clock stood still, another attempt.
func TestProofOfAnotherTime(t *testing.T) {
	p := newPlatform(t)
	p.policy = nodeapi.RenewIssued
	o, old := ended(t, p)
	now := old.Leaf.NotAfter.Add(2 * time.Hour)
	p.now = func() time.Time { return now }
	late := stopped{&clock{wall: now, signed: now.Add(-time.Hour), judges: true}}
	o.Clock = late
	c, _, err := Ensure(t.Context(), o)
	if err != nil || c.Leaf.Equal(old.Leaf) || late.asked != 1 || p.asked != 2 || len(p.byKey) != 1 {
		t.Fatalf("%v, %v, the time was asked for %d times, a certificate %d times", c, err, late.asked, p.asked)
	}

	p = newPlatform(t)
	p.policy = nodeapi.RenewIssued
	o, old = ended(t, p)
	p.now = func() time.Time { return now }
	wrong := stopped{&clock{wall: now, signed: now.Add(time.Hour), judges: true}}
	local := true
	o.Clock, o.LocalClock = wrong, &local
	waiting := func() string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(o.Dir, pendingFile))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	_, _, err = Ensure(t.Context(), o)
	if nodehttp.CodeOf(err) != nodeapi.CodeProofOutOfTime || fault.KindOf(err) != fault.Refuse || !strings.Contains(fault.HintOf(err), "set this machine's clock") || wrong.asked != 0 {
		t.Fatalf("%v (hint %q), asked %d times", err, fault.HintOf(err), wrong.asked)
	}
	key := waiting()
	if _, _, err := Ensure(t.Context(), o); err == nil || waiting() != key {
		t.Errorf("%v, and another key", err)
	}
	wrong.signed = now
	if c, _, err := Ensure(t.Context(), o); err != nil || c.Leaf.Equal(old.Leaf) || p.asked != 3 {
		t.Errorf("%v, %v, asked %d times", c, err, p.asked)
	}
}

// TestProofAtEachAttempt: what had to be sent again is signed again.
func TestProofAtEachAttempt(t *testing.T) {
	p := newPlatform(t)
	p.policy = nodeapi.RenewIssued
	o, old := ended(t, p)
	p.lose = 2
	var ticks atomic.Int64
	o.HTTP.Now = func() time.Time { return old.Leaf.NotAfter.Add(time.Duration(ticks.Load()) * time.Hour) }
	p.now = o.HTTP.Now
	o.Notify = func(error, time.Duration) { ticks.Add(1) }
	o.Backoff = nodehttp.Backoff{First: time.Millisecond, Max: time.Millisecond}
	if c, _, err := Ensure(t.Context(), o); err != nil || c.Leaf.Equal(old.Leaf) || ticks.Load() != 2 || len(p.byKey) != 1 {
		t.Errorf("%v, %v, after %d attempts, %d certificates", c, err, ticks.Load()+1, len(p.byKey))
	}
}

// TestWrongClocks are fifteen years off, both ways.
func TestWrongClocks(t *testing.T) {
	for name, off := range map[string]time.Duration{"behind": -15 * year, "ahead": 15 * year} {
		t.Run(name, func(t *testing.T) {
			p := newPlatform(t)
			p.policy = nodeapi.RenewIssued
			wrong := func() *clock { return &clock{wall: time.Now().Add(off), signed: time.Now()} }
			o := p.options(t.TempDir())
			down := wrong()
			down.fail = fault.New(fault.Retry, fault.Platform, "", "no time")
			o.Clock = down
			if _, _, err := Ensure(t.Context(), o); err == nil || len(p.requests) != 0 {
				t.Fatalf("without a time: %v, %d requests", err, len(p.requests))
			}
			right := wrong()
			o.Clock = right
			c, _, err := Ensure(t.Context(), o)
			if err != nil || right.asked != 1 || c.LocalClock {
				t.Fatalf("%v, asked %d times", err, right.asked)
			}
			// The next start: what is good isn't replaced by a clock that nobody vouches for.
			o.Clock = wrong()
			again, _, err := Ensure(t.Context(), o)
			if err != nil || !again.Leaf.Equal(c.Leaf) || p.asked != 0 || len(p.requests) != 1 {
				t.Errorf("again: %v, %d renewals", err, p.asked)
			}
			k := NewKeeper(Options{Dir: o.Dir, Clock: down})
			if err := k.Prepare(t.Context()); err == nil {
				t.Error("a call without a time that judges")
			}
			k = NewKeeper(Options{Dir: o.Dir, Clock: wrong()})
			if err := k.Prepare(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLocalClock never asks, and remembers not to.
func TestLocalClock(t *testing.T) {
	p := newPlatform(t)
	o := p.options(t.TempDir())
	c := &clock{wall: time.Now(), fail: fault.New(fault.Refuse, fault.Platform, "", "it signs no time")}
	o.Clock = c
	o.Discover = func(context.Context) (Bootstrap, error) {
		b := p.bootstrap()
		b.LocalClock = true
		return b, nil
	}
	got, _, err := Ensure(t.Context(), o)
	if err != nil || !got.LocalClock || c.asked != 0 {
		t.Fatalf("%v, asked %d times", err, c.asked)
	}
	k := NewKeeper(Options{Dir: o.Dir, Clock: c})
	if err := k.Rotate(t.Context()); err != nil || k.Prepare(t.Context()) != nil || c.asked != 0 {
		t.Errorf("%v, asked %d times", err, c.asked)
	}
	if got, err := k.Credentials(); err != nil || !got.LocalClock {
		t.Errorf("after a rotation: %v, %v", got, err)
	}
	// A person may change it, and the proxy, without a new certificate.
	signed, proxy := false, secret.New("http://u:hunter2@127.0.0.1:1")
	o.LocalClock, o.Proxy = &signed, &proxy
	if got, _, err = Ensure(t.Context(), o); err != nil || got.LocalClock || got.Proxy() == nil || len(p.requests) != 1 {
		t.Fatalf("%v, %v", got, err)
	}
	if m, err := k.Material(); err != nil || m.Proxy == nil || m.Proxy.Port() != "1" {
		t.Errorf("the service goes on without the proxy: %v", err)
	}
	if err := k.Rotate(t.Context()); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("through a proxy that isn't there: %v", err)
	}
}
