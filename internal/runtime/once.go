package runtime

import (
	"context"
	"errors"
	"time"

	"github.com/powernode/powernode-agent/internal/event"
	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// Once sends one heartbeat and returns what is wrong with it, or the platform's answer.
func (s *Service) Once(ctx context.Context) (*nodeapi.HeartbeatResponse, error) {
	if err := s.load(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.c.Timeout)
	defer cancel()
	h, start := &heartbeat{service: s, pulse: newPulse(grace)}, time.Now()
	answer, err := h.send(ctx)
	if err != nil {
		return nil, err
	}
	h.acknowledged(answer, start)
	return answer, nil
}

// Once tells the platform of every boot that it doesn't know of, in one attempt.
func (b BootReports) Once(ctx context.Context) error {
	return b.send(ctx, func(time.Duration) {}, map[string]time.Time{})
}

// Once does the tasks that the platform has for the node, of a Config with Once, and returns what it couldn't: ask for them, write down what it did, or
// tell what became of it. What a task itself has come to is for the platform, and no error here.
func (t *Tasks) Once(ctx context.Context) error {
	t.Run(ctx, func(time.Duration) {})
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.wrong
}

// Once tells the platform what is in the queue, as far as it takes that.
func (e Events) Once(ctx context.Context) error {
	if e.Rand == nil {
		e.Rand = func() float64 { return 0 }
	}
	var pace event.Pace
	for {
		next, err := e.send(ctx, &pace, eventsTime)
		switch {
		case err != nil:
			return err
		case next.Less:
		case next.Wait > 0 || ctx.Err() != nil:
			return context.Cause(ctx)
		}
	}
}

// Once brings the node in step if that is due, and returns what is wrong with that.
func (r *Reconcile) Once(ctx context.Context) error {
	due, _ := r.next(0)
	if !due {
		return nil
	}
	if why := r.c.Ready(); why != "" {
		return errors.New(why)
	}
	return r.once(ctx, func(time.Duration) {})
}
