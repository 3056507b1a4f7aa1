package trial

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/powernode/powernode-agent/internal/store"
)

func generations(numbers ...uint64) []store.Generation {
	var gs []store.Generation
	for _, n := range numbers {
		gs = append(gs, store.Generation{Number: n, Modules: []store.GenerationModule{{ManifestDigest: fmt.Sprint("sha256:", n), EffectivePriority: 1}}})
	}
	return gs
}

func lives(numbers ...uint64) []store.Live {
	var ls []store.Live
	for _, n := range numbers {
		ls = append(ls, store.Live{Generation: n, From: 1, At: once})
	}
	return ls
}

var once = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)

func TestOrder(t *testing.T) {
	for _, c := range []struct {
		name string
		in   Input
		want []string
	}{
		{name: "nothing"},
		{
			name: "the first one ever", in: Input{Staged: 1, Generations: generations(1)},
			want: []string{"1 trial 1/3: staged, attempt 1 of 3"},
		},
		{
			name: "the first one ever, exhausted",
			in:   Input{Staged: 1, Generations: generations(1), Trials: []store.Trial{{Generation: 1, Attempts: 3, Limit: 3}}},
			want: nil,
		},
		{
			name: "staged, then good", in: Input{Current: 2, Previous: 1, Staged: 3, Generations: generations(1, 2, 3), Trials: []store.Trial{{Generation: 3, Attempts: 1, Limit: 3}}},
			want: []string{"3 trial 2/3: staged, attempt 2 of 3", "2: the last that was good", "1: good before the current one"},
		},
		{
			name: "staged has failed",
			in:   Input{Current: 2, Previous: 1, Staged: 3, Generations: generations(1, 2, 3), Trials: []store.Trial{{Generation: 3, Attempts: 1, Limit: 3, Failed: "x"}}},
			want: []string{"2: the last that was good", "1: good before the current one"},
		},
		{
			name: "staged is current", in: Input{Current: 2, Staged: 2, Generations: generations(2)},
			want: []string{"2: the last that was good"},
		},
		{
			name: "current is damaged", in: Input{Current: 5, Previous: 2, Generations: generations(1, 2, 3, 4), Trials: []store.Trial{{Generation: 3, Good: once}, {Generation: 4, Failed: "x"}}},
			want: []string{"2: good before the current one", "3: good once", "1 trial 1/3: untested, and nothing that was good is left, attempt 1 of 3"},
		},
		{
			name: "pointers are damaged", in: Input{Generations: generations(1, 2), Trials: []store.Trial{{Generation: 2, Attempts: 2, Good: once}}},
			want: []string{"2: good once", "1 trial 1/3: untested, and nothing that was good is left, attempt 1 of 3"},
		},
		{
			name: "unfit", in: Input{Current: 2, Previous: 1, Generations: generations(1, 2), Unfit: map[uint64]string{2: "its root image is damaged"}},
			want: []string{"1: good before the current one"},
		},
		{
			name: "asked for one that failed",
			in:   Input{Current: 2, Asked: 3, Generations: generations(2, 3), Trials: []store.Trial{{Generation: 3, Attempts: 1, Limit: 3, Failed: "x"}}},
			want: []string{"3 trial 1/3: asked for on the kernel command line, attempt 1 of 3", "2: the last that was good"},
		},
		{
			name: "asked for in every boot, and it fails",
			in:   Input{Current: 2, Asked: 3, Generations: generations(2, 3), Trials: []store.Trial{{Generation: 3, Attempts: 2, Limit: 4, Asked: true, Failed: "x"}}},
			want: []string{"2: the last that was good"},
		},
		{
			name: "asked for a good one", in: Input{Current: 2, Previous: 1, Asked: 1, Generations: generations(1, 2)},
			want: []string{"1: asked for on the kernel command line", "2: the last that was good"},
		},
		{
			name: "asked for one that isn't here", in: Input{Current: 2, Asked: 9, Generations: generations(2)},
			want: []string{"2: the last that was good"},
		},
		{
			name: "another try of one that was good", in: Input{Current: 2, Previous: 1, Staged: 1, Generations: generations(1, 2), Trials: []store.Trial{{Generation: 1, Attempts: 2, Good: once}}},
			want: []string{"1 trial 1/3: staged, attempt 1 of 3", "2: the last that was good"},
		},
		{
			name: "went live, and wasn't booted", in: Input{Current: 3, Previous: 2, Generations: generations(1, 2, 3), Lives: lives(3)},
			want: []string{"3 trial 1/3: live, and not booted yet, attempt 1 of 3", "2: good before the current one", "1 trial 1/3: untested, and nothing that was good is left, attempt 1 of 3"},
		},
		{
			name: "went live, and was booted", in: Input{Current: 3, Previous: 2, Generations: generations(2, 3), Lives: lives(3), Trials: []store.Trial{{Generation: 3, Attempts: 1, Good: once}}},
			want: []string{"3: the last that was good", "2: good before the current one"},
		},
		{
			name: "went live, and doesn't boot",
			in:   Input{Current: 3, Previous: 2, Generations: generations(2, 3), Lives: lives(3), Trials: []store.Trial{{Generation: 3, Attempts: 3, Limit: 3}}},
			want: []string{"2: good before the current one"},
		},
		{
			name: "one after the other went live", in: Input{Current: 4, Previous: 2, Generations: generations(2, 3, 4), Lives: lives(3, 4)},
			want: []string{
				"4 trial 1/3: live, and not booted yet, attempt 1 of 3", "2: good before the current one",
				"3 trial 1/3: untested, and nothing that was good is left, attempt 1 of 3",
			},
		},
		{
			name: "went live, and is staged again", in: Input{Current: 3, Previous: 2, Staged: 3, Generations: generations(2, 3), Lives: lives(3)},
			want: []string{"3 trial 1/3: staged, attempt 1 of 3", "2: good before the current one"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, x := range Order(c.in) {
				text := fmt.Sprint(x.Generation)
				if x.IsTrial {
					text += fmt.Sprintf(" trial %d/%d", x.Attempt, x.Attempts)
				}
				got = append(got, text+": "+x.Why)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	gs := generations(1, 2, 3)
	gs[2].Modules = gs[1].Modules // generation 3 is 2 composed again
	failed := store.Trial{Generation: 2, Attempts: 1, Limit: 3, Failed: "x"}
	left := func(n, to uint64) []store.Left { return []store.Left{{Generation: n, For: to, At: once}} }
	for _, c := range []struct {
		name   string
		in     Input
		of     int
		number uint64
	}{
		{"never tried", Input{Generations: gs[:2]}, 1, 0},
		{"failed", Input{Generations: gs[:2], Trials: []store.Trial{failed}}, 1, 2},
		{"another", Input{Generations: gs[:2], Trials: []store.Trial{failed}}, 0, 0},
		{"failed, and current", Input{Current: 2, Generations: gs[:2], Trials: []store.Trial{failed}}, 1, 0},
		{"the same may be tried again", Input{Generations: gs, Trials: []store.Trial{failed}}, 1, 0},
		{"left", Input{Current: 1, Previous: 2, Generations: gs[:2], Lefts: []store.Left{{Generation: 2, At: once}}}, 1, 2},
		{"left for what is staged, and still current", Input{Current: 2, Staged: 1, Generations: gs[:2], Lefts: left(2, 1)}, 1, 2},
		{"left for what is staged and can't be had", Input{Current: 2, Staged: 1, Generations: gs[1:2], Lefts: left(2, 1)}, 1, 0},
		{"left for what is staged and unfit", Input{Current: 2, Staged: 1, Generations: gs[:2], Lefts: left(2, 1), Unfit: map[uint64]string{1: "x"}}, 1, 0},
		{"left for what failed its trial", Input{Current: 2, Staged: 1, Generations: gs[:2], Lefts: left(2, 1), Trials: []store.Trial{{Generation: 1, Failed: "x"}}}, 1, 0},
		{"left, and current, by a change that came to nothing", Input{Current: 2, Generations: gs[:2], Lefts: left(2, 1)}, 1, 0},
		{"left, and made current again under another number", Input{Current: 3, Generations: gs, Lefts: left(2, 1)}, 1, 0},
		{"left, and composed again", Input{Current: 1, Generations: gs, Lefts: []store.Left{{Generation: 2, At: once}}}, 2, 2},
		{"exhausted", Input{Generations: gs[:2], Trials: []store.Trial{{Generation: 2, Attempts: 3, Limit: 3}}}, 1, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			if n, why := Refused(c.in, gs[c.of].Modules); n != c.number || (why == "") != (n == 0) {
				t.Errorf("generation %d, %q; want %d", n, why, c.number)
			}
		})
	}
	more := append(slices.Clone(gs[1].Modules), store.GenerationModule{ManifestDigest: "sha256:9"})
	if n, _ := Refused(Input{Generations: gs[:2], Trials: []store.Trial{failed}}, more); n != 0 {
		t.Error("a set with one module more is another")
	}
}

func TestFallback(t *testing.T) {
	in := Input{Current: 2, Previous: 1, Staged: 3, Asked: 3, Generations: generations(1, 2, 3)}
	for running, want := range map[uint64]uint64{3: 2, 2: 1, 9: 2} {
		if got := Fallback(in, running); got != want {
			t.Errorf("from %d: %d, want %d", running, got, want)
		}
	}
	if got := Fallback(Input{Staged: 1, Generations: generations(1)}, 1); got != 0 {
		t.Errorf("of the first: %d", got)
	}
}

// node draws any state that a store can be in, mended or not.
func node(t *rapid.T) Input {
	number := rapid.Uint64Range(0, 8)
	in := Input{
		Current: number.Draw(t, "current"), Previous: number.Draw(t, "previous"), Staged: number.Draw(t, "staged"),
		Asked: number.Draw(t, "asked"), Limit: rapid.IntRange(0, 4).Draw(t, "limit"), Unfit: map[uint64]string{},
	}
	for n := uint64(1); n <= 7; n++ {
		if rapid.Bool().Draw(t, "readable") {
			in.Generations = append(in.Generations, generations(n)...)
		}
		if rapid.Bool().Draw(t, "tried") {
			r := store.Trial{Generation: n, Attempts: rapid.IntRange(0, 5).Draw(t, "attempts"), Asked: rapid.Bool().Draw(t, "was asked")}
			r.Limit = rapid.SampledFrom([]int{0, r.Attempts, r.Attempts + 2}).Draw(t, "its limit")
			r.Failed = rapid.SampledFrom([]string{"", "x"}).Draw(t, "failed")
			if rapid.Bool().Draw(t, "good") {
				r.Good = once
			}
			in.Trials = append(in.Trials, r)
		}
		if rapid.IntRange(0, 3).Draw(t, "live") == 0 {
			in.Lives = append(in.Lives, lives(n)...)
		}
		if rapid.IntRange(0, 9).Draw(t, "unfit") == 0 {
			in.Unfit[n] = "damaged"
		}
	}
	return in
}

func trialOf(in Input, n uint64) store.Trial {
	for _, t := range in.Trials {
		if t.Generation == n {
			return t
		}
	}
	return store.Trial{Generation: n}
}

func TestOrderHoldsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := node(t)
		order := Order(in)
		seen := make(map[uint64]bool)
		for _, c := range order {
			r := trialOf(in, c.Generation)
			readable := slices.ContainsFunc(in.Generations, func(g store.Generation) bool { return g.Number == c.Generation })
			switch {
			case seen[c.Generation]:
				t.Fatalf("generation %d twice", c.Generation)
			case !readable, in.Unfit[c.Generation] != "":
				t.Fatalf("generation %d can't be used", c.Generation)
			case c.Why == "":
				t.Fatalf("generation %d for no reason", c.Generation)
			case c.IsTrial && r.Exhausted() && (in.Asked != c.Generation || r.Asked):
				t.Fatalf("generation %d is exhausted: %+v", c.Generation, r)
			}
			seen[c.Generation] = true
			if !c.IsTrial {
				continue
			}
			next := c.Begin(once, "boot")
			if next.Attempts != r.Attempts+1 || next.Limit < next.Attempts || next.Failed != "" || next.Generation != c.Generation {
				t.Fatalf("%+v became %+v", r, next)
			}
			if c.Attempt < 1 || c.Attempt > c.Attempts {
				t.Fatalf("attempt %d of %d", c.Attempt, c.Attempts)
			}
		}
		for _, g := range in.Generations {
			r := trialOf(in, g.Number)
			live := slices.ContainsFunc(in.Lives, func(l store.Live) bool { return l.Generation == g.Number && l.Unproven(r) })
			good := !live && (g.Number == in.Current || g.Number == in.Previous) || !r.Good.IsZero() && !r.Exhausted()
			if good && in.Unfit[g.Number] == "" && !seen[g.Number] {
				t.Fatalf("good generation %d isn't reachable", g.Number)
			}
		}
	})
}

// TestBootsEnd plays boots none of which is found good: each uses up an attempt, and after a bounded number of
// them the node boots what is good, or nothing, whatever the kernel command line says.
func TestBootsEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := node(t)
		for boots := 0; ; boots++ {
			if boots > 8*8 {
				t.Fatalf("still trying: %+v", Order(in))
			}
			order := Order(in)
			if len(order) == 0 || !order[0].IsTrial {
				return
			}
			next := order[0].Begin(once, "boot")
			if rapid.IntRange(0, 3).Draw(t, "verdict") == 0 {
				next.Failed = "bad"
			}
			in.Trials = slices.DeleteFunc(in.Trials, func(r store.Trial) bool { return r.Generation == next.Generation })
			in.Trials = append(in.Trials, next)
		}
	})
}

func TestAskingAgainIsAskingAnew(t *testing.T) {
	in := Input{Current: 1, Asked: 2, Generations: generations(1, 2), Trials: []store.Trial{{Generation: 2, Attempts: 3, Limit: 3, Asked: true}}}
	if Order(in)[0].IsTrial || len(Unasked(in)) != 0 {
		t.Fatal("it has had its round")
	}
	in.Asked = 0
	in.Trials = Unasked(in)
	in.Asked = 2
	if first := Order(in)[0]; !first.IsTrial || first.Generation != 2 || first.Begin(once, "").Attempts != 4 {
		t.Errorf("%+v", first)
	}
}

func TestAgain(t *testing.T) {
	worn, bad := store.Trial{Generation: 1, Attempts: 3, Limit: 3}, store.Trial{Generation: 2, Attempts: 1, Limit: 3, Failed: "x"}
	in := Input{Staged: 1, Generations: generations(1, 2), Trials: []store.Trial{worn, bad}}
	if len(Order(in)) > 0 {
		t.Fatal("there is something to boot")
	}
	in.Trials = append(Again(in), bad)
	first := Order(in)
	if len(first) != 1 || first[0].Generation != 1 || first[0].Attempt != 1 || first[0].Begin(once, "").Attempts != 4 {
		t.Errorf("%+v", first)
	}
	// One that was good and can't be booted any more doesn't keep others from it.
	if again := Again(Input{Current: 2, Generations: generations(1, 2), Trials: []store.Trial{worn}}); len(again) != 1 {
		t.Errorf("with a good one: %+v", again)
	}
}
