package trial

import (
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
	for _, l := range in.Lefts {
		for _, g := range in.Generations {
			if g.Number == l.Generation && sameModules(g.Modules, modules) {
				return g.Number, "somebody went back from it, " + l.At.Format(time.RFC3339)
			}
		}
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
