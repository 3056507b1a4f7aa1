package nodehttp

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Backoff says how often, and how long, a call is tried again. The zero value tries for ever,
// from half a second up to a minute between attempts.
type Backoff struct {
	// Tries bounds the attempts, Elapsed the time within which another may start; 0 means no bound.
	Tries   uint
	Elapsed time.Duration
	// First and Max bound the wait between attempts; it grows by half each time, give or take half.
	First, Max time.Duration
}

// Run calls op until it succeeds, fails with a kind other than fault.Retry, or the bounds of b or
// ctx are reached; it returns op's last error. A Retry-After of the platform makes the
// wait longer, never shorter, and is stretched by up to a fifth, so that a fleet doesn't return as one. notify, if not nil, is told
// of each failure that is followed by a wait.
func (b Backoff) Run(ctx context.Context, notify func(err error, wait time.Duration), op func(context.Context) error) error {
	// Of two alike: each Retry-After begins the first one anew.
	policy, patience := b.policy(), b.policy()
	var last error
	attempts := 0
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		attempts++
		last = op(ctx)
		if last == nil || fault.KindOf(last) != fault.Retry {
			// A nil stays nil.
			return struct{}{}, backoff.Permanent(last)
		}
		wait := patience.NextBackOff()
		if after := RetryAfter(last); after > 0 {
			after += time.Duration(rand.Int64N(int64(after)/5 + 1))
			return struct{}{}, &backoff.RetryAfterError{Duration: max(after, wait)}
		}
		return struct{}{}, last
	},
		backoff.WithBackOff(policy), backoff.WithMaxTries(b.Tries), backoff.WithMaxElapsedTime(b.Elapsed),
		backoff.WithNotify(func(_ error, wait time.Duration) {
			if notify != nil {
				notify(last, wait)
			}
		}))
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && fault.KindOf(last) == fault.Retry:
		return fmt.Errorf("%w; gave up after attempt %d: %w", last, attempts, context.Cause(ctx))
	}
	return last
}

// policy is how the wait grows.
func (b Backoff) policy() *backoff.ExponentialBackOff {
	p := backoff.NewExponentialBackOff()
	if b.First > 0 {
		p.InitialInterval = b.First
	}
	if b.Max > 0 {
		p.MaxInterval = b.Max
	}
	return p
}
