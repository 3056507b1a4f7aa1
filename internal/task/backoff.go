package task

import "time"

// pause is when something that failed is tried again. The zero value is at once.
type pause struct {
	failures int
	next     time.Time
	// asked is until when the platform wants to be left alone.
	asked time.Time
}

// failed takes down a failure: the wait doubles from first up to most, and is spread by chance, of [0,1), so that a fleet
// doesn't return as one. after is what the platform asked for; it is never undercut.
func (p *pause) failed(now time.Time, first, most, after time.Duration, chance float64) {
	wait := most
	if p.failures < 16 {
		wait = min(first<<p.failures, most)
	}
	p.failures++
	wait = time.Duration(float64(wait) * (0.25 + 0.75*chance))
	p.asked = time.Time{}
	if after > 0 {
		p.asked = now.Add(time.Duration(float64(after) * (1 + 0.2*chance)))
		wait = max(wait, p.asked.Sub(now))
	}
	p.next = now.Add(wait)
}

// reset says that it worked.
func (p *pause) reset() { *p = pause{} }
