package trial

import (
	"slices"
	"time"

	"github.com/powernode/powernode-agent/internal/store"
)

// Refused says why a node shouldn't try these modules: they are those of a generation that was
// tried as often as it may be, or found bad, or that somebody went back from. It returns that generation and the reason, or 0. The answer
// stays until the assignment is another one, or the operator asks for the generation.
//
// Two sets are the same when they hold the same OCI manifests with the same effective priorities:
// then they make the same root.
func Refused(in Input, modules []store.GenerationModule) (generation uint64, reason string) {
	r := rank(in)
	if n, reason := Left(in, modules); n != 0 {
		return n, reason
	}
	for _, g := range in.Generations {
		if !sameModules(g.Modules, modules) {
			continue
		}
		t := r.trials[g.Number]
		if r.good(g.Number) || !t.Exhausted() {
			return 0, ""
		}
		if g.Number > generation {
			generation, reason = g.Number, Reason(t)
		}
	}
	return generation, reason
}

// Left says whether somebody went back from a generation of these modules, and which one that is, or returns 0. Against the modules
// of the current generation a mark counts only while the one that it was left for is staged, and may be tried: otherwise
// going back from them came to nothing, or they were taken up again since.
func Left(in Input, modules []store.GenerationModule) (generation uint64, reason string) {
	byNumber := make(map[uint64]store.Generation, len(in.Generations))
	for _, g := range in.Generations {
		byNumber[g.Number] = g
	}
	current, ok := byNumber[in.Current]
	isCurrent := ok && sameModules(current.Modules, modules)
	for _, l := range in.Lefts {
		if g, ok := byNumber[l.Generation]; !ok || !sameModules(g.Modules, modules) {
			continue
		}
		if !isCurrent || in.tries(l.For) {
			return l.Generation, "somebody went back from it, " + l.At.Format(time.RFC3339)
		}
	}
	return 0, ""
}

// tries reports whether a generation is staged, and can be tried.
func (in Input) tries(n uint64) bool {
	return n != 0 && n == in.Staged && in.Unfit[n] == "" &&
		slices.ContainsFunc(in.Generations, func(g store.Generation) bool { return g.Number == n }) &&
		!slices.ContainsFunc(in.Trials, func(t store.Trial) bool { return t.Generation == n && t.Exhausted() })
}

type part struct {
	manifest string
	priority int
}

func sameModules(a, b []store.GenerationModule) bool {
	parts := make(map[part]int)
	for _, m := range a {
		parts[part{m.ManifestDigest, m.EffectivePriority}]++
	}
	for _, m := range b {
		parts[part{m.ManifestDigest, m.EffectivePriority}]--
	}
	for _, n := range parts {
		if n != 0 {
			return false
		}
	}
	return true
}
