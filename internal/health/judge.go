package health

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/health/systemd"
)

// Settings are what a boot decides about the gate. They are part of the boot's facts.
type Settings struct {
	// Trial says that the generation isn't known to be good, and that a gate has to judge it.
	Trial bool `json:"trial,omitempty"`
	// Attempt of Attempts is which try this is; 0 where it is none.
	Attempt  int `json:"attempt,omitempty"`
	Attempts int `json:"attempts,omitempty"`
	// Tries is how many attempts the next generation gets that a soft-reboot leads to; 0 is trial.DefaultLimit.
	Tries int `json:"tries,omitempty"`
	// TimeoutSeconds is how long the generation has from the hand-over; 0 is DefaultTimeout.
	TimeoutSeconds int `json:"timeout_seconds,omitempty"`
	// PlatformOptional says that a generation is good also when it doesn't reach the platform.
	PlatformOptional bool `json:"platform_optional,omitempty"`
	// HandedOverSeconds is the machine's uptime (see Uptime) at the hand-over, from which the time counts; 0
	// is the start of the gate.
	HandedOverSeconds int64 `json:"handed_over_seconds,omitempty"`
	// PlatformReached says that the boot itself reached the platform. Where it didn't, an outage that goes
	// on says nothing about the generation.
	PlatformReached bool `json:"platform_reached,omitempty"`
}

// DefaultTimeout is how long a generation has to be found good.
const DefaultTimeout = 5 * time.Minute

// Timeout returns how long the generation has.
func (s Settings) Timeout() time.Duration {
	if s.TimeoutSeconds <= 0 {
		return DefaultTimeout
	}
	return time.Duration(s.TimeoutSeconds) * time.Second
}

// settle is for how long what was seen must have stayed the same before it counts.
const settle = 10 * time.Second

// Policy is what a Judge goes by.
type Policy struct {
	Settings
	// Accepted are units whose failure isn't this generation's fault: they had failed in the last good one, too.
	Accepted []string
	// Last says that there is no other generation to go back to. Failed units alone then don't count against this
	// one, once its time is over: a system without one service is better than none.
	Last bool
}

// Seen is what was seen of the system at one time.
type Seen struct {
	// System is what systemd says.
	System systemd.System
	// None says that the machine doesn't run systemd: nothing is known of its services.
	None bool
	// Silent is why systemd didn't answer, "" where it did.
	Silent string
	// Platform says that the platform has acknowledged this node since the hand-over.
	Platform bool
}

// Outcome is a verdict.
type Outcome string

// The outcomes.
const (
	Wait Outcome = "waiting"
	OK   Outcome = "good"
	Bad  Outcome = "bad"
)

// Verdict is what a Judge says.
type Verdict struct {
	Outcome Outcome `json:"verdict"`
	// Reasons say what is missing, or what is wrong. Beside OK they are remarks.
	Reasons []string `json:"reasons,omitempty"`
	// Early says of Bad that the generation's time wasn't over: what was wrong may have come from this boot alone.
	Early bool `json:"-"`
	// FailedUnits are the units that had failed at that time.
	FailedUnits []string `json:"failed_units,omitempty"`
}

// Reason returns the reasons in one sentence.
func (v Verdict) Reason() string { return strings.Join(v.Reasons, "; ") }

// Judge is the state between two looks.
type Judge struct {
	begun, fineSince, wrongSince time.Time
	// again are the units that were seen to start over and over.
	again map[string]again
}

// NewJudge returns a judge of a generation whose time runs since begun.
func NewJudge(begun time.Time) Judge { return Judge{begun: begun} }

// complaints are what one look found.
type complaints struct {
	missing []string // not there yet
	wrong   []string // won't get better by itself
	remarks []string
	units   []string // failed, accepted ones too
	only    bool     // what is wrong is failed units
	leaving bool     // the machine is being shut down
}

// Look takes what was seen at a time into account, and returns the judge for the next look beside the verdict. OK and
// Bad need a state that lasts for a moment; Bad also comes when the time is over.
func (j Judge) Look(now time.Time, p Policy, s Seen) (Judge, Verdict) {
	j, s = j.remember(now, s)
	c := complain(p, s)
	v := Verdict{Outcome: Wait, FailedUnits: c.units}
	if c.leaving {
		// What is found wrong from here on is of the shutdown.
		j.fineSince = time.Time{}
		v.Reasons = []string{"the machine is being shut down"}
		return j, v
	}
	since := func(t time.Time, is bool) time.Time {
		switch {
		case !is:
			return time.Time{}
		case t.IsZero():
			return now
		}
		return t
	}
	over := now.Sub(j.begun) >= p.Timeout()
	if p.Last && c.only {
		if over {
			c.remarks, c.wrong = append(c.remarks, c.wrong...), nil
		} else {
			c.missing, c.wrong = append(c.missing, c.wrong...), nil
		}
	}
	j.fineSince = since(j.fineSince, len(c.missing)+len(c.wrong) == 0)
	j.wrongSince = since(j.wrongSince, len(c.wrong) > 0)
	lasts := func(t time.Time) bool { return !t.IsZero() && now.Sub(t) >= settle }
	switch {
	case lasts(j.fineSince):
		v.Outcome, v.Reasons = OK, c.remarks
	case lasts(j.wrongSince):
		v.Outcome, v.Reasons, v.Early = Bad, c.wrong, !over
	case over && j.fineSince.IsZero():
		v.Outcome = Bad
		v.Reasons = append([]string{fmt.Sprintf("not good within %s", p.Timeout())}, append(c.wrong, c.missing...)...)
	default:
		v.Reasons = append(c.wrong, c.missing...)
	}
	return j, v
}

// Wrong reports whether something was wrong at the last look that won't get better by itself.
func (j Judge) Wrong() bool { return !j.wrongSince.IsZero() }

func complain(p Policy, s Seen) complaints {
	var c complaints
	c.platform(p, s)
	switch {
	case s.None:
		c.remarks = append(c.remarks, "services weren't checked: no systemd")
		return c
	case s.Silent != "":
		c.missing = append(c.missing, "systemd doesn't answer: "+s.Silent)
		return c
	}
	switch s.System.State {
	case "running", "degraded":
	case "stopping":
		c.leaving = true
	case "maintenance":
		c.wrong = append(c.wrong, "the system is in rescue or emergency mode")
		return c
	default:
		c.missing = append(c.missing, fmt.Sprintf("the system hasn't started: systemd says %.40q", s.System.State))
	}
	var failed, again, accepted []string
	for _, u := range s.System.Units {
		switch {
		case passing(u.Name):
			continue
		case slices.Contains(p.Accepted, u.Name):
			accepted = append(accepted, u.Name)
		case u.State == "auto-restart":
			again = append(again, u.Name)
			continue
		default:
			failed = append(failed, said(u))
		}
		c.units = append(c.units, u.Name)
	}
	slices.Sort(failed)
	slices.Sort(c.units)
	if len(accepted) > 0 {
		c.remarks = append(c.remarks, "failed, as in the last good generation: "+names(accepted))
	}
	if len(again) > 0 {
		c.missing = append(c.missing, "ended and about to be started again: "+names(again))
	}
	if len(failed) > 0 {
		c.wrong = append(c.wrong, "failed: "+names(failed))
		c.only = true
	}
	return c
}

func (c *complaints) platform(p Policy, s Seen) {
	switch {
	case s.Platform:
	case p.PlatformOptional:
		c.remarks = append(c.remarks, "the platform wasn't reached, which is optional")
	case !p.PlatformReached:
		c.remarks = append(c.remarks, "the platform wasn't reached, nor was it before the hand-over")
	default:
		c.missing = append(c.missing, "the platform was reached before the hand-over, and not from the new root")
	}
}

// passing reports whether a unit comes and goes with a person's or a program's command, and says nothing about
// the generation.
func passing(unit string) bool {
	return strings.HasSuffix(unit, ".scope") || strings.HasPrefix(unit, "run-") && strings.HasSuffix(unit, ".service") || strings.HasPrefix(unit, "user@")
}

// namesMax bounds a sentence that lists units.
const namesMax = 8

func names(units []string) string {
	if len(units) <= namesMax {
		return strings.Join(units, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(units[:namesMax], ", "), len(units)-namesMax)
}
