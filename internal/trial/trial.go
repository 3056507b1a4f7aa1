// Package trial decides which generation a node boots: one that the operator asks for, one that
// is staged and has attempts left, else what was good, newest first.
//
// It promises, for any input: a generation whose attempts are used up, or that was found bad, is
// never tried again unless the operator asks for it anew, and then for one more round; each attempt
// at a generation has a higher number than the one before; and every generation that is readable
// and known to be good is among the candidates. What it decides depends on its input alone.
//
// It trusts that the caller records an attempt on the disk before it uses the generation.
package trial

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/powernode/powernode-agent/internal/store"
)

// DefaultLimit is how many boots a generation gets to be found good in.
const DefaultLimit = 3

// Input is what the store holds, and what was asked.
type Input struct {
	// Current, Previous and Staged are the store's pointers; 0 for one that names nothing or is damaged.
	Current, Previous, Staged uint64
	// Asked is the generation that the kernel command line names (powernode.generation); 0 for none.
	Asked uint64
	// Generations are those with a readable record.
	Generations []store.Generation
	// Trials are all that are recorded, damaged ones too, as Store.Trials returns them.
	Trials []store.Trial
	// Lives are the generations that went live, Lefts those that somebody went back from; damaged records are in them,
	// too, as Store.Lives and Store.Lefts return them.
	Lives []store.Live
	Lefts []store.Left
	// Detached are the names of modules that the platform assigns and that are kept away here.
	Detached []string
	// Unfit says of generations why they can't be used in this boot.
	Unfit map[uint64]string
	// Limit is how many attempts a round of tries has; 0 is DefaultLimit.
	Limit int
}

// Candidate is a generation to boot.
type Candidate struct {
	Generation uint64
	// Why is the reason for it, half a sentence for the console.
	Why string
	// IsTrial says that it isn't known to be good: what Begin returns must be on the disk before it is
	// used, and only the health gate may promote it.
	IsTrial bool
	// Attempt is the number of the attempt in its round, of Attempts; 0 where it is no trial.
	Attempt, Attempts int

	next store.Trial
}

// Begin returns the record of the attempt that begins now, in the boot that the kernel gave bootID.
func (c Candidate) Begin(now time.Time, bootID string) store.Trial {
	t := c.next
	t.Begun, t.BootID = now.UTC(), bootID
	return t
}

// Order returns what to boot, best first. An empty list means that the node has nothing to run.
func Order(in Input) []Candidate { return rank(in).candidates }

// Fallback returns the best generation that is known to be good, other than the one that runs; 0
// where there is none.
func Fallback(in Input, running uint64) uint64 {
	in.Asked = 0
	for _, c := range Order(in) {
		if !c.IsTrial && c.Generation != running {
			return c.Generation
		}
	}
	return 0
}

// Unasked returns the records to put when the operator doesn't ask any more for what was asked for,
// so that asking again is asking anew.
func Unasked(in Input) []store.Trial {
	var changed []store.Trial
	for _, t := range in.Trials {
		if t.Asked && t.Generation != in.Asked {
			t.Asked = false
			changed = append(changed, t)
		}
	}
	return changed
}

// Again returns the records to put when a node that has nothing left that boots has waited for a while, for
// a person or another assignment, and nobody came: what was never found bad, and only used up its attempts, as by
// power cuts, gets another round.
func Again(in Input) []store.Trial {
	var again []store.Trial
	for _, t := range in.Trials {
		if t.Failed == "" && t.Exhausted() {
			t.Limit = 0
			again = append(again, t)
		}
	}
	return again
}

// Reason says why an exhausted generation isn't tried any more.
func Reason(t store.Trial) string {
	if t.Failed != "" {
		return t.Failed
	}
	reason := "1 boot began with it, and wasn't found good"
	if t.Attempts != 1 {
		reason = fmt.Sprintf("%d boots began with it, and none was found good", t.Attempts)
	}
	if t.Ended != "" {
		reason += "; one ended because of this: " + t.Ended
	}
	return reason
}

// ranking is an Order under way.
type ranking struct {
	in         Input
	trials     map[uint64]store.Trial
	lives      map[uint64]store.Live
	readable   map[uint64]bool
	candidates []Candidate
}

func rank(in Input) *ranking {
	if in.Limit <= 0 {
		in.Limit = DefaultLimit
	}
	r := &ranking{in: in, trials: make(map[uint64]store.Trial), lives: make(map[uint64]store.Live), readable: make(map[uint64]bool)}
	for _, t := range in.Trials {
		r.trials[t.Generation] = t
	}
	for _, l := range in.Lives {
		r.lives[l.Generation] = l
	}
	numbers := make([]uint64, 0, len(in.Generations))
	for _, g := range in.Generations {
		r.readable[g.Number] = true
		numbers = append(numbers, g.Number)
	}
	slices.SortFunc(numbers, func(a, b uint64) int { return cmp.Compare(b, a) })

	r.asked()
	r.staged()
	r.current()
	if r.good(in.Previous) {
		r.known(in.Previous, "good before the current one")
	}
	for _, n := range numbers {
		if r.good(n) {
			r.known(n, "good once")
		}
	}
	for _, n := range numbers {
		if !r.good(n) && !r.trials[n].Exhausted() {
			r.try(n, "untested, and nothing that was good is left", false)
		}
	}
	return r
}

// good reports whether a generation passed the health gate and hasn't failed since.
func (r *ranking) good(n uint64) bool {
	t := r.trials[n]
	if !r.lives[n].Unproven(t) && (n == r.in.Current || n == r.in.Previous) {
		return true
	}
	return !t.Good.IsZero() && !t.Exhausted()
}

// current is what runs by the last word: known to be good, unless it came into a running system and was never booted.
func (r *ranking) current() {
	n := r.in.Current
	switch {
	case n == 0:
	case r.good(n):
		r.known(n, "the last that was good")
	case !r.trials[n].Exhausted():
		r.try(n, "live, and not booted yet", false)
	}
}

func (r *ranking) asked() {
	n, t := r.in.Asked, r.trials[r.in.Asked]
	const why = "asked for on the kernel command line"
	switch {
	case n == 0:
	case r.good(n):
		r.known(n, why)
	case t.Asked && t.Exhausted():
		// Asking once isn't asking in every boot for ever: that would be a machine that only restarts.
	default:
		r.try(n, why, true)
	}
}

func (r *ranking) staged() {
	n := r.in.Staged
	if n != 0 && (n != r.in.Current || !r.good(n)) && !r.trials[n].Exhausted() {
		r.try(n, "staged", false)
	}
}

// known adds a generation that is known to be good.
func (r *ranking) known(n uint64, why string) {
	if n != 0 && r.usable(n) {
		r.candidates = append(r.candidates, Candidate{Generation: n, Why: why})
	}
}

// try adds a generation that isn't.
func (r *ranking) try(n uint64, why string, asked bool) {
	if !r.usable(n) {
		return
	}
	t := r.trials[n]
	t.Generation = n
	if t.Limit == 0 || asked && !t.Asked {
		t.Limit, t.Asked = t.Attempts+r.in.Limit, asked
		t.Failed, t.FailedAt, t.Ended, t.Forgiven = "", time.Time{}, "", 0
	}
	t.Attempts++
	c := Candidate{Generation: n, IsTrial: true, next: t, Attempts: r.in.Limit}
	c.Attempt = max(1, c.Attempts-(t.Limit-t.Attempts))
	c.Why = fmt.Sprintf("%s, attempt %d of %d", why, c.Attempt, c.Attempts)
	r.candidates = append(r.candidates, c)
}

// usable reports whether a generation can be a candidate, and isn't one yet.
func (r *ranking) usable(n uint64) bool {
	isOne := slices.ContainsFunc(r.candidates, func(c Candidate) bool { return c.Generation == n })
	return !isOne && r.in.Unfit[n] == "" && r.readable[n]
}
