package runtime

import (
	"context"
	"log/slog"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Chore is the loop that does something now and then. Only Soon, Last and Log may be left out.
type Chore struct {
	// Name says what is done: "keep the host keys".
	Name string
	// Do does it, and reports whether it never needs to be done again. What it returns is logged when it
	// changes, and it is done again in its time.
	Do func(ctx context.Context) (done bool, err error)
	// Every is how often, Soon how often in the first minutes, 0 for no difference.
	Every, Soon time.Duration
	// Last says that it is done once more when the service ends.
	Last bool
	// Log takes what goes wrong; nil discards it.
	Log *slog.Logger
}

// choreSettling is how long the first minutes are: a system that has just started changes most.
const choreSettling = 5 * time.Minute

// choreTime bounds one time of a chore, by the watchdog. It is long, since a disk that doesn't answer is
// no reason to end the heartbeats.
const choreTime = time.Hour

// wait returns how long to wait for the next time, when the loop has run for an age.
func (c Chore) wait(age time.Duration) time.Duration {
	if c.Soon > 0 && age < choreSettling {
		return c.Soon
	}
	return c.Every
}

// Run implements Loop. The first time is at once.
func (c Chore) Run(ctx context.Context, alive func(time.Duration)) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	complaint, begun := "", time.Now()
	for {
		last := ctx.Err() != nil
		if last && !c.Last {
			return
		}
		alive(choreTime)
		done, err := c.Do(context.WithoutCancel(ctx))
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != complaint && text != "" {
			c.Log.Warn("can't "+c.Name, "error", err, "hint", fault.HintOf(err))
		}
		complaint = text
		if done || last {
			return
		}
		wait := c.wait(time.Since(begun))
		alive(wait)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}
