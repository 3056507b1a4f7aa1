package change

import (
	"fmt"
	"slices"
	"time"

	"github.com/powernode/powernode-agent/internal/difference"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/store"
)

// EndingsName is of how the last windows ended in which changes waited to be confirmed: whoever waits for one learns it from there, as
// it may be somebody else who ends it.
const EndingsName = "confirmed.json"

// endingsMost is how many are kept: nobody waits for an older one.
const endingsMost = 8

// verdict is how the waiting for a confirmation ended.
type verdict string

const (
	wasConfirmed verdict = "confirmed"
	// wasTakenBack: in vain, and what ran before runs again, or is staged.
	wasTakenBack verdict = "taken back"
	// wasLeft: somebody asked for what ran before, or for another generation.
	wasLeft verdict = "left"
)

// ending is the end of one window.
type ending struct {
	// Generation and Deadline are the confirmation's, which they name: a generation may wait more than once.
	Generation uint64        `json:"generation"`
	Deadline   time.Duration `json:"deadline_uptime_ns"`
	Verdict    verdict       `json:"verdict"`
	// Back is the generation that runs then, or is staged.
	Back       uint64          `json:"back_to_generation,omitempty"`
	RootDigest fsverity.Digest `json:"root_digest"`
	// Way is how it comes back; "" is the one of a plan that isn't known, and live.
	Way     Way      `json:"way,omitempty"`
	Reasons []string `json:"reasons,omitempty"`
	Remarks []string `json:"remarks,omitempty"`
	Undone  []string `json:"undone,omitempty"`

	// plan is that of the way back, for who went it.
	plan *Plan
}

type endings struct {
	Last []ending `json:"last"`
}

// ended writes down how a window ended. Nothing but what somebody is told hangs on it.
func (c *Changer) ended(e ending) error {
	all, _ := c.endings() // what can't be read is replaced
	all = slices.DeleteFunc(all, func(o ending) bool { return o.is(e.Generation, e.Deadline) })
	all = append(all, e)
	return c.writeRun(EndingsName, endings{all[max(0, len(all)-endingsMost):]})
}

func (c *Changer) endings() ([]ending, error) {
	var all endings
	_, err := readRun(c.RunDir, EndingsName, &all)
	return all.Last, err
}

func (e ending) is(generation uint64, deadline time.Duration) bool {
	return e.Generation == generation && e.Deadline == deadline
}

// ending returns how a window ended; ok is false where nobody has written it down.
func (c *Changer) ending(generation uint64, deadline time.Duration) (e ending, ok bool) {
	all, _ := c.endings() // what can't be read is as good as none
	i := slices.IndexFunc(all, func(e ending) bool { return e.is(generation, deadline) })
	if i < 0 {
		return ending{}, false
	}
	return all[i], true
}

// guess is how a window ended that nobody wrote down: what the records of the generation say.
func (c *Changer) guess(generation uint64) ending {
	e := ending{Generation: generation, Verdict: wasConfirmed, Back: c.Running.Generation}
	lefts, _ := c.Store.Lefts() // damaged ones are in it
	t, _ := c.Store.Trial(generation)
	switch {
	case t.Failed != "":
		e.Verdict, e.Remarks = wasTakenBack, []string{t.Failed}
		if staged, err := c.Store.Pointer(store.Staged); err == nil && e.Back == generation {
			e.Back, e.Way = staged, Boot
		}
	case slices.ContainsFunc(lefts, func(l store.Left) bool { return l.Generation == generation }):
		e.Verdict = wasLeft
	}
	e.RootDigest = c.rootOf(e.Back)
	return e
}

// rootOf is a generation's root digest, and none where that can't be told.
func (c *Changer) rootOf(generation uint64) fsverity.Digest {
	g, err := c.Store.Generation(generation)
	if err != nil {
		return fsverity.Digest{}
	}
	return g.RootDigest
}

// settle has a result say how its window ended, now that a generation runs.
func (e ending) settle(r *Result, running uint64) {
	if e.Verdict == wasConfirmed {
		if running != r.Generation {
			r.Remarks = append(r.Remarks, fmt.Sprintf("it was confirmed, and somebody has changed what runs since: generation %d does", running))
		}
		return
	}
	if e.plan == nil && e.Way != Live && e.Way != "" {
		e.plan = &Plan{Way: e.Way, Reasons: e.Reasons, Top: []difference.TopLevel{}, Contested: []Contested{}, Conflicts: []LocalConflict{}}
	}
	if e.plan == nil || e.plan.Way == Live {
		r.Remarks, r.Undone = append(r.Remarks, r.Undone...), nil // what failed of what doesn't run isn't to be done any more
	}
	if e.Verdict == wasLeft {
		r.Remarks = append(r.Remarks, fmt.Sprintf("it wasn't confirmed, and somebody else went back from it: generation %d runs", e.Back))
	}
	r.Remarks, r.Undone = append(r.Remarks, e.Remarks...), append(r.Undone, e.Undone...)
	if e.plan != nil && e.plan.Way != Live {
		r.Remarks = append(r.Remarks, fmt.Sprintf("generation %d %s", e.Back, backAtBoot))
	}
	r.Outcome, r.Generation, r.RootDigest, r.Plan = TakenBack, e.Back, e.RootDigest, e.plan
}
