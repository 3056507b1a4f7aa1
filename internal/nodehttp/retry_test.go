package nodehttp

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

func flaky(n *int, failures int, err error) func(context.Context) error {
	return func(context.Context) error {
		if *n++; *n <= failures {
			return err
		}
		return nil
	}
}

func TestBackoff(t *testing.T) {
	again := fault.New(fault.Retry, fault.Platform, "wait", "try: %w", io.EOF)
	never := fault.New(fault.Refuse, fault.Platform, "", "try: no")
	slow := fault.New(fault.Retry, fault.Platform, "", "try: %w", &StatusError{Status: 429, RetryAfter: 100 * time.Second})
	soon := fault.New(fault.Retry, fault.Platform, "", "try: %w", &StatusError{Status: 429, RetryAfter: time.Second})
	policy := Backoff{First: time.Second, Max: 4 * time.Second}
	for _, c := range []struct {
		name     string
		policy   Backoff
		failures int
		err      error
		attempts int
		want     error
		min, max time.Duration
	}{
		{"at once", policy, 0, nil, 1, nil, 0, 0},
		{"third time", policy, 2, again, 3, nil, time.Second, 4 * time.Second},
		{"refused", policy, 9, never, 1, never, 0, 0},
		{"unclassified", policy, 9, io.EOF, 1, io.EOF, 0, 0},
		{"tries", Backoff{Tries: 4, First: time.Second, Max: time.Second}, 9, again, 4, again, 1500 * time.Millisecond, 4500 * time.Millisecond},
		{"elapsed", Backoff{Elapsed: time.Minute, First: time.Second, Max: 4 * time.Second}, 999, again, 0, again, 50 * time.Second, time.Minute},
		{"Retry-After", policy, 1, slow, 2, nil, 100 * time.Second, 120 * time.Second},
		{"Retry-After, again and again", Backoff{First: time.Second, Max: time.Minute}, 8, soon, 9, nil, 20 * time.Second, 80 * time.Second},
		{"for an hour", policy, 999, again, 1000, nil, time.Hour / 2, 2 * time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, n, told := time.Now(), 0, 0
				err := c.policy.Run(t.Context(), func(e error, _ time.Duration) {
					if told++; !errors.Is(e, c.err) {
						t.Errorf("told of %v", e)
					}
				}, flaky(&n, c.failures, c.err))
				took := time.Since(start)
				if c.attempts != 0 && n != c.attempts || !errors.Is(err, c.want) || took < c.min || took > c.max {
					t.Errorf("%d attempts in %v, %v; want %d in %v to %v, %v", n, took, err, c.attempts, c.min, c.max, c.want)
				}
				if told != n-1 {
					t.Errorf("told of %d failures of %d attempts", told, n)
				}
			})
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			n := 0
			err := policy.Run(ctx, nil, flaky(&n, 999, again))
			if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, io.EOF) || fault.KindOf(err) != fault.Retry || fault.HintOf(err) == "" {
				t.Errorf("%v (kind %v, hint %q)", err, fault.KindOf(err), fault.HintOf(err))
			}
		})
	})
}
