package event

import (
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// Verdict is what a call with a batch came to.
type Verdict uint8

// The verdicts. The zero value is the one that changes nothing.
const (
	Away   Verdict = iota // nothing, or a failure that may pass
	Took                  // the platform has the batch
	Not                   // it says that it won't ever take one event of the batch
	Large                 // somebody doesn't take a batch of this size
	Denied                // it takes no events, or none of this node; or somebody before it said something
)

// The rhythm of events.
const (
	// gather is how long an event waits at most for others that may come with it.
	gather = time.Second
	// look is how often it is looked for events that another process has put into the queue.
	look = 30 * time.Second
	// Failures are followed by waits that double within these, denials by the longer ones.
	awayFirst   = 5 * time.Second
	awayMost    = 2 * time.Minute
	deniedFirst = time.Minute
	deniedMost  = time.Hour
	// Events that are given up in a row, none being taken between them, have pauses that double within these: what is wrong may as well be
	// the platform, and the queue is to last until somebody has looked.
	refusedFirst = 10 * time.Second
	refusedMost  = time.Hour
)

// Pace decides how many events are told at once, and when the next ones are. The zero value is the beginning.
type Pace struct {
	most     int
	failures int
	refused  int // in a row
}

// Most returns how many events the next batch may have.
func (p *Pace) Most() int {
	if p.most == 0 {
		return nodeapi.MaxEvents
	}
	return p.most
}

// Next is what is to be done after a batch.
type Next struct {
	// Wait is how long to wait; Patient says that news doesn't end it.
	Wait    time.Duration
	Patient bool
	// Told and Refused say what is to be done about the batch itself; neither is to keep it. Less says that fewer of its events are to be told at
	// once: so it is found which of them isn't taken.
	Told, Refused, Less bool
}

// Sent returns what follows a batch of n events: 0 is that there was none. more says that there are more; after is what the platform
// asked to wait, which is never undercut; chance, of [0,1), spreads the fleet.
func (p *Pace) Sent(n int, more bool, v Verdict, after time.Duration, chance float64) Next {
	if n == 0 {
		return Next{Wait: look}
	}
	switch v {
	case Took:
		p.failures, p.refused, p.most = 0, 0, min(2*p.Most(), nodeapi.MaxEvents)
		if more {
			return Next{Told: true}
		}
		return Next{Wait: look, Told: true}
	case Not, Large:
		if n > 1 {
			p.most = n / 2
			return Next{Less: true}
		}
		if v == Not {
			p.failures = 0
			wait := doubled(refusedFirst, refusedMost, p.refused)
			p.refused++
			return Next{Wait: wait, Patient: true, Refused: true}
		}
	case Away, Denied:
	}
	first, most := awayFirst, awayMost
	if v != Away {
		first, most = deniedFirst, deniedMost
	}
	wait := time.Duration(float64(doubled(first, most, p.failures)) * (0.25 + 0.75*chance))
	p.failures++
	if after > 0 {
		wait = max(wait, time.Duration(float64(after)*(1+0.2*chance)))
	}
	return Next{Wait: wait, Patient: true}
}

// doubled returns first, doubled so many times, at most most.
func doubled(first, most time.Duration, times int) time.Duration {
	if times > 10 {
		return most
	}
	return min(first<<times, most)
}

// Failing returns whether the platform didn't take the last batch.
func (p *Pace) Failing() bool { return p.failures > 0 }

// Gather returns how long to wait for more after news.
func Gather(chance float64) time.Duration { return time.Duration(float64(gather) * (0.5 + 0.5*chance)) }
