package runtime

import "time"

// The bounds of the interval between two heartbeats, whatever the platform asks for, and what is
// taken where it asks for nothing.
const (
	MinInterval     = 5 * time.Second
	MaxInterval     = 300 * time.Second
	DefaultInterval = 30 * time.Second
	// maxAsked bounds what a platform asks to wait. One that doesn't keep up with heartbeats puts them off by up to two intervals.
	maxAsked = 2 * MaxInterval
	// maxRetryInterval lets a node be back before the platform calls it stale (3 minutes) once
	// the platform is.
	maxRetryInterval = 120 * time.Second
)

// Outcome is what became of a heartbeat.
type Outcome struct {
	// Failures is how many in a row failed, this one included; 0 when it was acknowledged.
	Failures int
	// Refused says that the platform said no, rather than nothing.
	Refused bool
	// NextPollSeconds is what the platform asked for when it acknowledged; 0 is nothing.
	NextPollSeconds int
	// RetryAfter is how long the platform asked to wait when it failed; 0 is nothing.
	RetryAfter time.Duration
}

// newsInterval is how long news waits after a heartbeat that was acknowledged: what comes together is told together.
const newsInterval = time.Second

// soonest returns how soon the next heartbeat may follow one with that outcome where there is news, and the next one by itself follows in wait.
// hurried says that what was in the way may be gone, by a new certificate or an administrator's hand: the wait after a failure is
// cut short then, but never the one that the platform asked for.
func soonest(o Outcome, wait time.Duration, hurried bool) time.Duration {
	switch {
	case o.Failures == 0:
		return min(wait, newsInterval)
	case !hurried || o.RetryAfter > 0:
		return wait
	}
	return min(wait, MinInterval)
}

// NextInterval returns how long to wait before the next heartbeat. chance, of [0,1), spreads the
// fleet: an acknowledged heartbeat's interval by a tenth both ways, a failed one's over the upper half of
// an interval that doubles with each failure. A platform's request to wait is never undercut, up to
// 10 minutes.
func NextInterval(o Outcome, chance float64) time.Duration {
	scale := func(d time.Duration, f float64) time.Duration { return time.Duration(float64(d) * f) }
	if o.Failures == 0 {
		d := DefaultInterval
		if o.NextPollSeconds > 0 {
			d = time.Duration(min(o.NextPollSeconds, int(MaxInterval/time.Second))) * time.Second
		}
		return min(max(scale(d, 0.9+0.2*chance), MinInterval), MaxInterval)
	}
	most := maxRetryInterval
	if o.Refused {
		most = MaxInterval
	}
	d := most
	if shift := o.Failures - 1; shift < 6 {
		d = min(MinInterval*2<<shift, most)
	}
	d = max(scale(d, 0.5+0.5*chance), MinInterval)
	if asked := min(o.RetryAfter, maxAsked); asked > 0 {
		d = max(d, scale(asked, 1+0.2*chance))
	}
	return d
}
