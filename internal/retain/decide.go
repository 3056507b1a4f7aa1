package retain

import (
	"fmt"
	"slices"
	"time"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/store"
)

// Verdict says of one generation whether it is kept.
type Verdict struct {
	Generation uint64 `json:"generation"`
	Keep       bool   `json:"-"`
	// Reasons are why it is kept, each enough by itself, or why it may go.
	Reasons []string `json:"reasons"`
}

// Keep is a verdict on every generation, by number.
type Keep []Verdict

// Of returns the verdict on a generation; one that isn't there may go.
func (k Keep) Of(n uint64) Verdict {
	for _, v := range k {
		if v.Generation == n {
			return v
		}
	}
	return Verdict{Generation: n}
}

// Kept returns the numbers of those that stay, in order.
func (k Keep) Kept() []uint64 { return k.numbers(true) }

// Gone returns the numbers of those that may go, in order.
func (k Keep) Gone() []uint64 { return k.numbers(false) }

func (k Keep) numbers(kept bool) []uint64 {
	var numbers []uint64
	for _, v := range k {
		if v.Keep == kept {
			numbers = append(numbers, v.Generation)
		}
	}
	return numbers
}

// Decide says which generations stay: the current one, the one before it, what a rollback would go to, the staged,
// those that run, what ran before one that went live and wasn't booted since, those that a person pinned or asked for,
// the newest ones, and what a writable layer of any of these was used over. The newest of all is always among them, as
// its number is the last that was given out.
func Decide(in Input) Keep {
	newest := in.Newest
	if newest < 1 {
		newest = DefaultNewest
	}
	numbers := in.numbers()
	mounted := in.mounted()
	back, maybe := Back(in), maybeBack(in)
	keep := make(Keep, len(numbers))
	for i, n := range numbers {
		v := Verdict{Generation: n}
		for _, r := range []struct {
			holds bool
			why   string
		}{
			{n == in.Current, "current"},
			{n == in.Running, "runs"},
			{n != in.Running && mounted[n], "mounted"},
			{n == in.Staged, "staged"},
			{n == in.Previous, "previous"},
			{n == back && n != in.Previous, "last good"},
			{maybe[n], "perhaps the last good: a record that says so is damaged"},
			{in.ranBefore(n), "ran before what went live"},
			{in.Pin(n).Generation == n, "pinned"},
			{in.trial(n).Asked, "asked for on the kernel command line"},
			{i >= len(numbers)-newest, newestOf(newest)},
		} {
			if r.holds {
				v.Reasons = append(v.Reasons, r.why)
			}
		}
		v.Keep = len(v.Reasons) > 0
		if !v.Keep {
			v.Reasons = []string{mayGo(in, n, len(numbers)-1-i)}
		}
		keep[i] = v
	}
	return keep.beneath(in)
}

// beneath keeps the generations whose images writable layers were used over that those which stay boot with.
func (k Keep) beneath(in Input) Keep {
	needed := make(map[fsverity.Digest]bool)
	for _, n := range k.Kept() {
		g, _ := in.generation(n)
		for _, root := range in.Beneath[g.RootDigest] {
			needed[root] = true
		}
	}
	for n := range in.newestOf(func(root fsverity.Digest) bool { return needed[root] }) {
		i := slices.IndexFunc(k, func(v Verdict) bool { return v.Generation == n })
		if !k[i].Keep {
			k[i] = Verdict{Generation: n, Keep: true, Reasons: []string{"a writable layer was used over it"}}
		}
	}
	return k
}

func newestOf(newest int) string {
	if newest == 1 {
		return "the newest"
	}
	return fmt.Sprintf("one of the newest %d", newest)
}

func mayGo(in Input, n uint64, newer int) string {
	h := HealthOf(in, n)
	return fmt.Sprintf("%s, nothing names it, and %d are newer", h.State, newer)
}

// ranBefore reports whether a generation is what the current one, or the one that runs, took the place of live: a change that isn't
// confirmed in time goes back to it, though no boot may have proved it and no pointer name it.
func (in Input) ranBefore(n uint64) bool {
	return slices.ContainsFunc([]uint64{in.Current, in.Running}, func(live uint64) bool {
		l := in.Live(live)
		return l.From == n && l.Unproven(in.trial(live))
	})
}

// maybeBack returns the generations that a rollback could go to if what is damaged of the records that judge them said that they
// are good, and aren't left: as long as nobody knows, they stay.
func maybeBack(in Input) map[uint64]bool {
	doubtful := make(map[uint64]bool)
	hope := in
	hope.Trials, hope.Lefts, hope.Lives = slices.Clone(in.Trials), nil, nil
	for i, t := range in.Trials {
		if t.Unreadable() {
			doubtful[t.Generation] = true
			hope.Trials[i] = store.Trial{Generation: t.Generation, Good: unknownTime}
		}
	}
	for _, l := range in.Lefts {
		if l.Unreadable() {
			doubtful[l.Generation] = true
			continue
		}
		hope.Lefts = append(hope.Lefts, l)
	}
	for _, l := range in.Lives {
		if l.Unreadable() {
			doubtful[l.Generation] = true
			continue
		}
		hope.Lives = append(hope.Lives, l)
	}
	maybe := make(map[uint64]bool)
	for range doubtful {
		n := Back(hope)
		if !doubtful[n] || maybe[n] {
			break
		}
		maybe[n] = true
		// And if that one wasn't?
		hope.Lefts = append(hope.Lefts, store.Left{Generation: n, At: unknownTime})
	}
	return maybe
}

// unknownTime is when something happened of which only that is assumed.
var unknownTime = time.Unix(1, 0)

// mounted returns the newest generation of each root that is mounted.
func (in Input) mounted() map[uint64]bool {
	return in.newestOf(func(root fsverity.Digest) bool {
		_, ok := in.Mounted[root]
		return ok
	})
}

// newestOf returns the newest generation of each root that is wanted.
func (in Input) newestOf(wanted func(root fsverity.Digest) bool) map[uint64]bool {
	newest := make(map[fsverity.Digest]uint64)
	for _, g := range in.Generations {
		if wanted(g.RootDigest) {
			newest[g.RootDigest] = max(newest[g.RootDigest], g.Number)
		}
	}
	numbers := make(map[uint64]bool, len(newest))
	for _, n := range newest {
		numbers[n] = true
	}
	return numbers
}
