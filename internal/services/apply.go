package services

import (
	"context"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health/systemd"
)

// Reloader is a Manager that can be told to read its units again, as *systemd.Manager can.
type Reloader interface {
	Manager
	Reload(ctx context.Context) error
}

// Apply brings the running system from the units that were placed before to those of a Set: it stops what goes, places, has systemd
// read its units, restarts what changed and starts what is new, and waits for each of these steps as long as within. The outcomes are
// those of restarts and starts, whatever became of them; the error is that a step couldn't be done at all, or in area Partial that modules
// were refused (see Place) and all the rest is done. Where nothing changes,
// nothing is done. Doing it again after an error goes on where that one ended.
func Apply(ctx context.Context, m Reloader, run string, set Set, within time.Duration) (Changes, []systemd.Outcome, error) {
	changes, err := Diff(run, set)
	if err != nil {
		return changes, nil, err
	}
	if len(changes.Stop) > 0 {
		if _, err := m.Jobs(ctx, systemd.Stop, changes.Stop, within); err != nil {
			return changes, nil, cannotAsk(err)
		}
	}
	_, partial := Place(run, set)
	if partial != nil && fault.AreaOf(partial) != fault.Partial || changes.None() {
		return changes, nil, partial
	}
	if err := m.Reload(ctx); err != nil {
		return changes, nil, cannotAsk(err)
	}
	var outcomes []systemd.Outcome
	for _, step := range []struct {
		verb  systemd.Verb
		units []string
	}{{systemd.Restart, changes.Restart}, {systemd.Start, changes.Start}} {
		if len(step.units) == 0 {
			continue
		}
		done, err := m.Jobs(ctx, step.verb, step.units, within)
		if outcomes = append(outcomes, done...); err != nil {
			return changes, outcomes, cannotAsk(err)
		}
	}
	return changes, outcomes, partial
}
