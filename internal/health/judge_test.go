package health

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/powernode/powernode-agent/internal/health/systemd"
)

func running(units ...systemd.Unit) Seen {
	return Seen{System: systemd.System{State: "running", Units: units}, Platform: true}
}

func failedUnit(name string) systemd.Unit   { return systemd.Unit{Name: name, State: "failed"} }
func againUnit(name string) systemd.Unit    { return systemd.Unit{Name: name, State: "auto-restart"} }
func inState(state string, s Seen) Seen     { s.System.State = state; return s }
func withoutPlatform(s Seen) Seen           { s.Platform = false; return s }
func after(d time.Duration, s Seen) look    { return look{d, s} }
func policy(change ...func(*Policy)) Policy { return policyOf(change) }

func policyOf(change []func(*Policy)) Policy {
	p := Policy{Settings: Settings{Trial: true, PlatformReached: true}}
	for _, c := range change {
		c(&p)
	}
	return p
}

// look is what is seen from that time on.
type look struct {
	at   time.Duration
	seen Seen
}

// overAndOverLooks are of a service that runs for two seconds, and waits eight for its next start, so many times at least; once more, it
// goes on running.
func overAndOverLooks(times int) []look {
	var looks []look
	for i := range max(times, 5) + 3 {
		if i > times && times < againMost {
			break
		}
		at := time.Duration(i) * 10 * time.Second
		u := againUnit("a.service")
		u.Restarts = uint32(i) //nolint:gosec // small
		looks = append(looks, after(at, running(u)), after(at+8*time.Second, running()))
	}
	return looks
}

// judged looks every two seconds until there is a verdict, or for an hour.
func judged(p Policy, looks ...look) (time.Duration, Verdict) {
	begun := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	j := NewJudge(begun)
	var v Verdict
	for at := time.Duration(0); at < time.Hour; at += 2 * time.Second {
		var seen Seen
		for _, l := range looks {
			if l.at <= at {
				seen = l.seen
			}
		}
		if j, v = j.Look(begun.Add(at), p, seen); v.Outcome != Wait {
			return at, v
		}
	}
	return time.Hour, v
}

func TestJudge(t *testing.T) {
	last := func(p *Policy) { p.Last = true }
	optional := func(p *Policy) { p.PlatformOptional = true }
	outage := func(p *Policy) { p.PlatformReached = false }
	accepts := func(p *Policy) { p.Accepted = []string{"a.service"} }
	for _, c := range []struct {
		name    string
		policy  Policy
		looks   []look
		at      time.Duration
		outcome Outcome
		reason  string
	}{
		{"all is well", policy(), []look{after(0, running())}, settle, OK, ""},
		{"it takes a while", policy(), []look{after(0, inState("starting", running())), after(40*time.Second, running())}, 50 * time.Second, OK, ""},
		{"it never starts", policy(), []look{after(0, inState("starting", running()))}, DefaultTimeout, Bad, `systemd says "starting"`},
		{"less time", policy(func(p *Policy) { p.TimeoutSeconds = 60 }), []look{after(0, inState("starting", running()))}, time.Minute, Bad, "not good within 1m0s"},
		{"good at the last moment", policy(), []look{after(0, inState("starting", running())), after(DefaultTimeout-2*time.Second, running())}, DefaultTimeout + 8*time.Second, OK, ""},
		{"a unit failed", policy(), []look{after(0, running()), after(6*time.Second, inState("degraded", running(failedUnit("a.service"))))}, 16 * time.Second, Bad, "failed: a.service"},
		{"a unit failed and recovered", policy(), []look{after(0, running(failedUnit("a.service"))), after(6*time.Second, running())}, 16 * time.Second, OK, ""},
		{"a unit failed in the last good one too", policy(accepts), []look{after(0, running(failedUnit("a.service")))}, settle, OK, "as in the last good generation: a.service"},
		{"another one failed", policy(accepts), []look{after(0, running(failedUnit("a.service"), failedUnit("b.service")))}, settle, Bad, "failed: b.service"},
		{"a unit that waits for its next start", policy(), []look{after(0, running(againUnit("a.service")))}, DefaultTimeout, Bad, "about to be started again: a.service"},
		{"a unit that starts over and over", policy(), overAndOverLooks(5), 60 * time.Second, Bad, "failed: a.service (started again 6 times)"},
		{"a unit that starts a few times", policy(), overAndOverLooks(3), 48 * time.Second, OK, ""},
		{"it comes well after many starts", policy(last), append(overAndOverLooks(5), after(60*time.Second, running())), 96 * time.Second, OK, ""},
		{"it failed in the last good one, and starts over and over", policy(accepts), overAndOverLooks(5), settle, OK, "as in the last good generation: a.service"},
		{"the last, with one that starts over and over", policy(last), overAndOverLooks(200), DefaultTimeout + settle, OK, "failed: a.service (started again"},
		{"a person's unit", policy(), []look{after(0, running(failedUnit("session-1.scope"), failedUnit("run-u3.service")))}, settle, OK, ""},
		{"emergency mode", policy(), []look{after(0, inState("maintenance", running()))}, settle, Bad, "emergency"},
		{"shut down meanwhile", policy(), []look{after(0, inState("stopping", running(failedUnit("a.service"))))}, time.Hour, Wait, "shut down"},
		{"the platform isn't reached", policy(), []look{after(0, withoutPlatform(running()))}, DefaultTimeout, Bad, "not from the new root"},
		{"the platform is reached late", policy(), []look{after(0, withoutPlatform(running())), after(time.Minute, running())}, 70 * time.Second, OK, ""},
		{"the platform is optional", policy(optional), []look{after(0, withoutPlatform(running()))}, settle, OK, "optional"},
		{"the platform was away before", policy(outage), []look{after(0, withoutPlatform(running()))}, settle, OK, "nor was it before"},
		{"no systemd", policy(), []look{after(0, Seen{None: true, Platform: true})}, settle, OK, "no systemd"},
		{"systemd doesn't answer", policy(), []look{after(0, Seen{Silent: "timeout", Platform: true})}, DefaultTimeout, Bad, "doesn't answer: timeout"},
		{"the last, with a failed unit", policy(last), []look{after(0, running(failedUnit("a.service")))}, DefaultTimeout + settle, OK, "failed: a.service"},
		{"the last, without the platform", policy(last), []look{after(0, withoutPlatform(running(failedUnit("a.service"))))}, DefaultTimeout, Bad, "not from the new root"},
	} {
		t.Run(c.name, func(t *testing.T) {
			at, v := judged(c.policy, c.looks...)
			if at != c.at || v.Outcome != c.outcome || !strings.Contains(v.Reason(), c.reason) || c.reason == "" && v.Reason() != "" {
				t.Errorf("%s after %s: %q; want %s after %s", v.Outcome, at, v.Reason(), c.outcome, c.at)
			}
		})
	}
}

// TestJudgeHoldsItsPromises: whatever is seen, a generation is never good with something missing or wrong, a verdict
// has lasted or is due, and a bad one has a reason.
func TestJudgeHoldsItsPromises(t *testing.T) {
	begun := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		p := Policy{
			Settings: Settings{TimeoutSeconds: rapid.IntRange(0, 100).Draw(t, "timeout"), PlatformOptional: rapid.Bool().Draw(t, "optional"), PlatformReached: rapid.Bool().Draw(t, "reached")},
			Last:     rapid.Bool().Draw(t, "last"),
		}
		j, at := NewJudge(begun), begun
		fine := 0 // looks in a row at which nothing was to complain about
		for range rapid.IntRange(1, 60).Draw(t, "looks") {
			at = at.Add(2 * time.Second)
			s := Seen{
				System:   systemd.System{State: rapid.SampledFrom([]string{"starting", "running", "degraded", "running", "running", "maintenance", "stopping", ""}).Draw(t, "state")},
				Platform: rapid.Bool().Draw(t, "platform"),
			}
			if rapid.IntRange(0, 3).Draw(t, "failed") == 0 {
				s.System.Units = []systemd.Unit{failedUnit("a.service")}
			}
			c := complain(p, s)
			if fine++; len(c.missing)+len(c.wrong) > 0 || c.leaving {
				fine = 0
			}
			var v Verdict
			j, v = j.Look(at, p, s)
			over := at.Sub(begun) >= p.Timeout()
			switch v.Outcome {
			case OK:
				if fine < int(settle/(2*time.Second)) && (!p.Last || !over) {
					t.Fatalf("good after %d fine looks", fine)
				}
			case Bad:
				if v.Reason() == "" || !over && len(c.wrong) == 0 || v.Early == over {
					t.Fatalf("bad because of %q", v.Reason())
				}
			}
		}
	})
}
