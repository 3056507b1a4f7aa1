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
	Not                   // it doesn't take this batch, as it is
	Denied                // it takes no events, or none of this node
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
	// refusedPace keeps a platform that refuses everything from emptying the queue at once.
	refusedPace = 10 * time.Second
)

// Pace decides how many events are told at once, and when the next ones are. The zero value is the beginning.
type Pace struct {
	most     int
	failures int
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
	// Told and Refused say what is to be done about the batch itself; neither is to keep it.
	Told, Refused bool
}

// Sent returns what follows a batch of n events: 0 is that there was none. more says that there are more; after is what the platform
// asked to wait, which is never undercut; chance, of [0,1), spreads the fleet.
func (p *Pace) Sent(n int, more bool, v Verdict, after time.Duration, chance float64) Next {
	if n == 0 {
		return Next{Wait: look}
	}
	if v == Took || v == Not {
		p.failures = 0
	}
	switch {
	case v == Took && !more:
		p.most = min(2*p.Most(), nodeapi.MaxEvents)
		return Next{Wait: look, Told: true}
	case v == Took:
		p.most = min(2*p.Most(), nodeapi.MaxEvents)
		return Next{Told: true}
	case v == Not && n > 1:
		// One of them is the one that isn't taken, or they are too many.
		p.most = n / 2
		return Next{}
	case v == Not:
		return Next{Wait: refusedPace, Patient: true, Refused: true}
	}
	first, most := awayFirst, awayMost
	if v == Denied {
		first, most = deniedFirst, deniedMost
	}
	wait := most
	if p.failures < 10 {
		wait = min(first<<p.failures, most)
	}
	p.failures++
	wait = time.Duration(float64(wait) * (0.25 + 0.75*chance))
	if after > 0 {
		wait = max(wait, time.Duration(float64(after)*(1+0.2*chance)))
	}
	return Next{Wait: wait, Patient: true}
}

// Failing returns whether the platform didn't take the last batch.
func (p *Pace) Failing() bool { return p.failures > 0 }

// Gather returns how long to wait for more after news.
func Gather(chance float64) time.Duration { return time.Duration(float64(gather) * (0.5 + 0.5*chance)) }
