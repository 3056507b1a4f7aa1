package runtime

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// grace is what a loop may be late by before it counts as stuck.
const grace = 30 * time.Second

// pulse is one loop's promise of when it will show up again.
type pulse struct {
	mu    sync.Mutex
	due   time.Time
	ended bool
}

func newPulse(within time.Duration) *pulse { return &pulse{due: time.Now().Add(within)} }

// within promises the next sign of life within d, give or take the grace.
func (p *pulse) within(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.due = time.Now().Add(d + grace)
}

// end says that the loop has done its work.
func (p *pulse) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
}

// late returns how far the loop is behind its promise, or 0.
func (p *pulse) late() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return 0
	}
	return max(0, time.Since(p.due))
}

// judge runs the gate. Its verdict ends the loop, and so does a panic, which leaves the verdict to the guard.
func (s *Service) judge(ctx context.Context, p *pulse) {
	defer p.end()
	defer func() {
		if r := recover(); r != nil {
			s.c.Log.Error("the health gate panicked", "panic", r, "stack", string(debug.Stack()))
		}
	}()
	s.c.Gate.Run(ctx, s.reached.Load, p.within)
}

// beside runs a loop. A panic ends it and nothing else.
func (s *Service) beside(ctx context.Context, l Loop, p *pulse) {
	defer p.end()
	defer func() {
		if r := recover(); r != nil {
			s.c.Log.Error("a loop panicked", "loop", fmt.Sprintf("%T", l), "panic", r, "stack", string(debug.Stack()))
		}
	}()
	l.Run(ctx, p.within)
}

// watch tells the watchdog twice in its time that the loops turn, and stops telling it when one
// doesn't, so that systemd restarts the service.
func (s *Service) watch(ctx context.Context, pulses []*pulse) {
	tick := time.NewTicker(s.c.Watchdog / 2)
	defer tick.Stop()
	for {
		var late time.Duration
		for _, p := range pulses {
			late = max(late, p.late())
		}
		if late > 0 {
			s.c.Log.Error("a loop is stuck; the watchdog isn't told of life any more", "late", late)
		} else {
			s.notify("WATCHDOG=1")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
