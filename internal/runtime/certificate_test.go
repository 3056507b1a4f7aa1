package runtime

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

const lifetime = 100 * time.Hour

func TestNextCertificateStep(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(d time.Duration) time.Time { return begin.Add(d) }
	status := func(s enroll.Situation) enroll.Status {
		return enroll.Status{Situation: s, Serial: "1", NotBefore: begin, NotAfter: at(lifetime), RotateAt: at(77 * time.Hour), CABundleSHA256: "old"}
	}
	shut := func(s enroll.Status) enroll.Status { s.Shut = true; return s }
	for _, c := range []struct {
		name string
		now  time.Duration
		v    CertificateView
		step CertificateStep
		wait time.Duration
	}{
		{name: "young", now: time.Hour, v: CertificateView{Status: status(enroll.Valid)}, wait: certificateLook},
		{name: "soon", now: 77*time.Hour - time.Minute, v: CertificateView{Status: status(enroll.Expiring)}, wait: time.Minute},
		{name: "due", now: 77 * time.Hour, v: CertificateView{Status: status(enroll.Expiring)}, step: CertificateRotate},
		{name: "asked", now: time.Hour, v: CertificateView{Status: status(enroll.Valid), Refresh: true}, step: CertificateRotate},
		{
			name: "asked, and failed a moment ago", now: time.Hour, wait: certificateLook,
			v: CertificateView{Status: status(enroll.Valid), Refresh: true, Rotate: Attempts{Failures: 1, Last: at(time.Hour)}},
		},
		{
			name: "asked, and failed a while ago", now: time.Hour + refreshMost,
			v: CertificateView{Status: status(enroll.Valid), Refresh: true, Rotate: Attempts{Failures: 1, Last: at(time.Hour)}}, step: CertificateRotate,
		},
		{
			name: "failed with an hour left", now: 99*time.Hour + time.Minute, wait: 2 * time.Minute,
			v: CertificateView{Status: status(enroll.Expiring), Rotate: Attempts{Failures: 9, Last: at(99 * time.Hour)}},
		},
		{
			name: "failed with an hour left, and due again", now: 99*time.Hour + 3*time.Minute,
			v: CertificateView{Status: status(enroll.Expiring), Rotate: Attempts{Failures: 9, Last: at(99 * time.Hour)}}, step: CertificateRotate,
		},
		{
			name: "asked to wait", now: 99*time.Hour + 4*time.Minute, wait: time.Minute,
			v: CertificateView{Status: status(enroll.Expiring), Rotate: Attempts{Failures: 9, Last: at(99 * time.Hour), Asked: 5 * time.Minute}},
		},
		{name: "expired", now: 101 * time.Hour, v: CertificateView{Status: status(enroll.Expired)}, step: CertificateRenew},
		{name: "superseded", now: time.Hour, v: CertificateView{Status: status(enroll.Superseded)}, step: CertificateRenew},
		{
			name: "waits for approval", now: 101*time.Hour + 10*time.Second, wait: 20 * time.Second,
			v: CertificateView{Status: status(enroll.Expired), Renew: Attempts{Failures: 3, Last: at(101 * time.Hour), Asked: 30 * time.Second}},
		},
		{
			name: "unreachable three times", now: 101*time.Hour + time.Minute, wait: time.Minute,
			v: CertificateView{Status: status(enroll.Expired), Renew: Attempts{Failures: 3, Last: at(101 * time.Hour)}},
		},
		{
			name: "renewal refused", now: 101*time.Hour + 59*time.Minute, wait: time.Minute,
			v: CertificateView{Status: status(enroll.Expired), Renew: Attempts{Failures: 1, Last: at(101 * time.Hour), Refused: true}},
		},
		{name: "revoked", now: time.Hour, v: CertificateView{Status: status(enroll.Revoked)}, wait: certificateBad},
		{name: "inactive", now: time.Hour, v: CertificateView{Status: status(enroll.Inactive)}, wait: certificateLook},
		{name: "none", v: CertificateView{Bundle: "new"}, wait: certificateBad},
		{name: "CA", now: 80 * time.Hour, v: CertificateView{Status: status(enroll.Expiring), Bundle: "new"}, step: CertificateCA},
		{name: "same CA", now: time.Hour, v: CertificateView{Status: status(enroll.Valid), Bundle: "old"}, wait: certificateLook},
		{
			name: "CA failed", now: time.Hour + time.Second, wait: 29 * time.Second,
			v: CertificateView{Status: status(enroll.Valid), Bundle: "new", CA: Attempts{Failures: 1, Last: at(time.Hour)}},
		},
		{name: "shut out", now: time.Hour, v: CertificateView{Status: shut(status(enroll.Valid))}, step: CertificateCA},
		{
			name: "shut out, and the CA is the same", now: time.Hour, step: CertificateRenew,
			v: CertificateView{Status: shut(status(enroll.Valid)), CA: Attempts{Failures: 1, Last: at(time.Hour)}},
		},
		{
			name: "shut out, and not renewed", now: time.Hour, wait: certificateFirst,
			v: CertificateView{Status: shut(status(enroll.Valid)), CA: Attempts{Failures: 1, Last: at(time.Hour)}, Renew: Attempts{Failures: 1, Last: at(time.Hour), Refused: true}},
		},
		{name: "CA rolled", now: time.Hour, v: CertificateView{Status: status(enroll.CARolled)}, step: CertificateRotate},
		{
			name: "CA rolled, and not taken any more", now: time.Hour, step: CertificateRenew,
			v: CertificateView{Status: status(enroll.CARolled), Rotate: Attempts{Failures: 1, Last: at(time.Hour), Refused: true}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if step, wait := NextCertificateStep(at(c.now), c.v); step != c.step || wait != c.wait {
				t.Errorf("%v, %v; want %v, %v", step, wait, c.step, c.wait)
			}
		})
	}
}

// TestCertificateClockSetBack: what failed by a clock that was ahead is tried again once it is set back, and not when that time has come again.
func TestCertificateClockSetBack(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	ahead := Attempts{Failures: 3, Last: now.AddDate(10, 0, 0), Refused: true}
	status := enroll.Status{Situation: enroll.Expired, Serial: "1", NotBefore: now.Add(-lifetime), NotAfter: now, CABundleSHA256: "a"}
	for want, v := range map[CertificateStep]CertificateView{
		CertificateRenew:  {Status: status, Renew: ahead},
		CertificateCA:     {Status: status, Bundle: "b", CA: ahead},
		CertificateRotate: {Status: enroll.Status{Situation: enroll.Expiring, Serial: "1", NotBefore: now.Add(-lifetime), NotAfter: now.Add(time.Hour), RotateAt: now.Add(-time.Hour)}, Rotate: ahead},
	} {
		if got, wait := NextCertificateStep(now, v); got != want {
			t.Errorf("%v, %v; want %v", got, wait, want)
		}
	}
}

// keeper keeps certificates of a hundred hours as enroll's does, of a platform that a test breaks.
type keeper struct {
	mu     sync.Mutex
	begin  time.Time
	serial int
	bundle string
	word   enroll.Situation // what the platform said; Valid for nothing
	// fail, if not nil, is what an attempt gets; offered is the bundle that there is to adopt.
	fail, blind error
	offered     string
	attempts    []string
	// jump is how far the node's clock is off.
	jump time.Duration
	// shut says that the platform ends the handshake for every certificate.
	shut bool
}

func (k *keeper) now() time.Time { return time.Now().Add(k.jump) }

func (k *keeper) Now() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now()
}

func (k *keeper) Prepare(context.Context) error { return k.blind }

func (k *keeper) Status() (enroll.Status, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := enroll.Status{
		Situation: k.word, Serial: string(rune('A' + k.serial)), NotBefore: k.begin, NotAfter: k.begin.Add(lifetime),
		RotateAt: k.begin.Add(77 * time.Hour), CABundleSHA256: k.bundle, Shut: k.shut,
	}
	switch age := k.now().Sub(k.begin); {
	case k.word != enroll.Valid:
	case age >= lifetime:
		s.Situation = enroll.Expired
	case age < -5*time.Minute:
		s.Situation = enroll.NotYetValid
	}
	if s.Situation != enroll.Valid {
		s.Reason, s.Hint = "the certificate is "+s.Situation.String(), s.Situation.Hint()
	}
	return s, nil
}

func (k *keeper) try(what string, done func()) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.attempts = append(k.attempts, what)
	if k.fail != nil {
		return k.fail
	}
	done()
	return nil
}

func (k *keeper) anew() { k.serial, k.begin, k.word = k.serial+1, time.Now(), enroll.Valid } // by the platform's clock

func (k *keeper) Rotate(context.Context) error  { return k.try("rotate", k.anew) }
func (k *keeper) Renew(context.Context) error   { return k.try("renew", k.anew) }
func (k *keeper) AdoptCA(context.Context) error { return k.try("CA", func() { k.bundle = k.offered }) }

func (k *keeper) set(alter func()) { k.mu.Lock(); defer k.mu.Unlock(); alter() }

func (k *keeper) tried() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := strings.Join(k.attempts, " ")
	k.attempts = nil
	return all
}

// keep runs the loop in a bubble of its own time.
func keep(t *testing.T, k *keeper, script func(c *Certificate, log *journal)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		k.begin = time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		log := &journal{}
		c := NewCertificate(k, slog.New(slog.NewTextHandler(log, nil)))
		late := newPulse(time.Minute)
		go c.Run(ctx, late.within)
		script(c, log)
		if late.late() > 0 {
			t.Error("the loop is late")
		}
		cancel()
		synctest.Wait()
	})
}

func sleep(d time.Duration) { time.Sleep(d); synctest.Wait() }

func TestCertificateIsRotated(t *testing.T) {
	k := &keeper{word: enroll.Valid}
	keep(t, k, func(c *Certificate, _ *journal) {
		sleep(77*time.Hour - time.Second)
		if got := k.tried(); got != "" {
			t.Errorf("before its time: %s", got)
		}
		sleep(2 * time.Second)
		if got := k.tried(); got != "rotate" || c.Notice() != "" {
			t.Errorf("in its time: %s, %q", got, c.Notice())
		}
		sleep(10 * 77 * time.Hour)
		if got := k.tried(); strings.Count(got, "rotate") != 10 {
			t.Errorf("ten lifetimes: %s", got)
		}
	})
}

func TestCertificateThroughAnOutage(t *testing.T) {
	k := &keeper{word: enroll.Valid, fail: fault.New(fault.Retry, fault.Platform, "", "nobody answers")}
	keep(t, k, func(c *Certificate, log *journal) {
		sleep(90 * time.Hour)
		first := strings.Count(k.tried(), "rotate")
		sleep(10*time.Hour - time.Second)
		second := strings.Count(k.tried(), "rotate")
		if first < 10 || second < 2*first || second > 200 {
			t.Errorf("%d attempts in the first 13 hours, %d in the last 10", first, second)
		}
		if got := c.Remarks(); len(got) != 1 || got[0] != "nobody answers" {
			t.Errorf("remarks %q", got)
		}
		sleep(24 * time.Hour)
		if got := k.tried(); !strings.Contains(got, "renew") || strings.Contains(strings.SplitN(got, "renew", 2)[1], "rotate") {
			t.Errorf("after the end: %s", got)
		}
		if got := c.Notice(); got != "the certificate is expired; nobody answers" {
			t.Errorf("notice %q", got)
		}
		k.set(func() { k.fail = nil })
		sleep(certificateMost)
		if got := k.tried(); got != "renew" || c.Notice() != "" || k.serial != 1 {
			t.Errorf("after the outage: %s, %q", got, c.Notice())
		}
		if n := strings.Count(log.String(), "nobody answers"); n != 2 && n != 1 {
			t.Errorf("%d lines for one complaint:\n%s", n, log.String())
		}
	})
}

func TestCertificateWaitsForApproval(t *testing.T) {
	waiting := &enroll.Waiting{Message: "powernode node approve web-1", Again: 20 * time.Second}
	k := &keeper{word: enroll.Superseded, fail: fault.New(fault.Retry, fault.Platform, "", "renew: %w", waiting)}
	keep(t, k, func(c *Certificate, _ *journal) {
		sleep(61 * time.Second)
		if got := k.tried(); got != "renew renew renew renew" {
			t.Errorf("in a minute: %s", got)
		}
		if got := c.Notice(); got != "the certificate is superseded; its renewal waits for an operator: powernode node approve web-1" {
			t.Errorf("notice %q", got)
		}
		k.set(func() { k.fail = nil })
		sleep(20 * time.Second)
		if got := k.tried(); got != "renew" || c.Notice() != "" {
			t.Errorf("once approved: %s, %q", got, c.Notice())
		}
	})
}

func TestCertificateRevoked(t *testing.T) {
	k := &keeper{word: enroll.Revoked}
	keep(t, k, func(c *Certificate, _ *journal) {
		sleep(time.Hour)
		if got := k.tried(); got != "" || !strings.Contains(c.Notice(), "is revoked; make a token") {
			t.Errorf("%s, %q", got, c.Notice())
		}
		// A person enrolls it again.
		k.set(k.anew)
		sleep(2 * time.Minute)
		if c.Notice() != "" {
			t.Errorf("afterwards: %q", c.Notice())
		}
	})
}

// TestCertificateFollowsThePlatform has heartbeats bring a new CA, and the wish for a new certificate.
func TestCertificateFollowsThePlatform(t *testing.T) {
	k := &keeper{word: enroll.Valid, bundle: "old", offered: "new"}
	keep(t, k, func(c *Certificate, _ *journal) {
		sleep(time.Second)
		if c.CABundle() != "old" {
			t.Errorf("the bundle is %q", c.CABundle())
		}
		c.Answered(&nodeapi.HeartbeatResponse{CABundleSHA256: "new", Refresh: true})
		sleep(time.Second)
		if got := k.tried(); got != "CA rotate" || c.CABundle() != "new" {
			t.Errorf("%s, bundle %q", got, c.CABundle())
		}
		c.Answered(&nodeapi.HeartbeatResponse{CABundleSHA256: "new"})
		sleep(time.Hour)
		if got := k.tried(); got != "" {
			t.Errorf("and then: %s", got)
		}
		// A bundle that never becomes the one that is spoken of isn't asked for in a circle.
		c.Answered(&nodeapi.HeartbeatResponse{CABundleSHA256: "other"})
		sleep(2 * time.Hour)
		if n := strings.Count(k.tried(), "CA"); n < 3 || n > 10 {
			t.Errorf("%d attempts", n)
		}
	})
}

// TestCertificateHearsOfARefusal acts on the platform's word at once, and on nothing else.
func TestCertificateHearsOfARefusal(t *testing.T) {
	k := &keeper{word: enroll.Valid}
	keep(t, k, func(c *Certificate, _ *journal) {
		sleep(time.Second)
		k.set(func() { k.word = enroll.Superseded })
		c.Refused(fault.New(fault.Retry, fault.Platform, "", "nobody answers"))
		sleep(time.Second)
		if got := k.tried(); got != "" {
			t.Errorf("in an outage: %s", got)
		}
		c.Refused(&nodehttp.StatusError{Status: http.StatusUnauthorized, Code: nodeapi.CodeCertificateSuperseded})
		sleep(time.Second)
		if got := k.tried(); got != "renew" {
			t.Errorf("refused: %s", got)
		}
	})
}

// TestCertificateShutOut: whoever isn't let in asks for the CA and a new certificate, and neither in a circle, although the CA is the one that the platform
// spoke of.
func TestCertificateShutOut(t *testing.T) {
	k := &keeper{word: enroll.Valid, bundle: "same", offered: "same"}
	keep(t, k, func(c *Certificate, _ *journal) {
		c.Answered(&nodeapi.HeartbeatResponse{Acknowledged: true, CABundleSHA256: "same"})
		sleep(time.Second)
		k.set(func() { k.shut = true })
		c.Refused(fault.New(fault.Refuse, fault.Platform, "", "%w: bad certificate", nodehttp.ErrOwnCertificate))
		sleep(time.Second)
		if got := k.tried(); got != "CA renew" {
			t.Errorf("shut out: %.200s", got)
			return
		}
		sleep(time.Hour)
		if got := k.tried(); strings.Count(got, "CA") > 8 || strings.Count(got, "renew") > 8 || got == "" {
			t.Errorf("within an hour: %s", got)
		}
	})
}

// TestCertificateWithoutAClock does nothing by a clock that may be wrong.
func TestCertificateWithoutAClock(t *testing.T) {
	k := &keeper{word: enroll.Expired, blind: fault.New(fault.Retry, fault.Platform, "", "no time: %w", errors.New("down"))}
	keep(t, k, func(c *Certificate, _ *journal) {
		sleep(10 * time.Minute)
		if got := k.tried(); got != "" || !strings.Contains(c.Notice(), "no time: down") {
			t.Errorf("%s, %q", got, c.Notice())
		}
	})
}

// TestHeartbeatTellsOfTheCertificate looks at what goes out and comes in.
func TestHeartbeatTellsOfTheCertificate(t *testing.T) {
	k := &keeper{word: enroll.Inactive, bundle: "b"}
	dir := proc(t)
	synctest.Test(t, func(t *testing.T) {
		k.begin = time.Now()
		n := serve(t, dir, func(n *node) { n.config.Certificate = NewCertificate(k, nil) })
		sleep(time.Second)
		if hb := n.platform.beats[0]; hb.CABundleSHA256 != "b" || len(hb.Remarks) != 1 || !strings.Contains(hb.Remarks[0], "is inactive") {
			t.Errorf("%+v", hb)
		}
		told := strings.Join(n.manager.told, "\n")
		if !strings.Contains(told, "STATUS=Heartbeat acknowledged") || !strings.Contains(told, "; the certificate is inactive") {
			t.Errorf("systemd was told\n%s", told)
		}
		// A new certificate is shown to the platform at once.
		n.platform.mu.Lock()
		n.platform.fail = fault.New(fault.Refuse, fault.Platform, "", "shut out")
		n.platform.mu.Unlock()
		k.set(func() { k.word, k.begin = enroll.Expired, time.Now().Add(-2*lifetime) })
		sleep(certificateLook + time.Second)
		if got := k.tried(); got != "renew" {
			t.Errorf("tried %s", got)
		}
		beats := n.platform.times
		if last := beats[len(beats)-1]; time.Since(last) > 2*time.Second {
			t.Errorf("the last heartbeat was %s ago", time.Since(last))
		}
		if _, err := n.stop(t); err != nil {
			t.Error(err)
		}
	})
}
