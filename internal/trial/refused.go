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
// of the current generation a mark counts only while what it was left for is staged, and may be tried: otherwise
// going back from them came to nothing, or they were taken up again since.
func Left(in Input, modules []store.GenerationModule) (generation uint64, reason string) {
	current, ok := in.generation(in.Current)
	isCurrent := ok && sameModules(current.Modules, modules)
	for _, l := range in.Lefts {
		if in.Stands(l) && in.Means(l, modules) && (!isCurrent || in.awaits(l)) {
			return l.Generation, "somebody went back from it, " + l.At.Format(time.RFC3339)
		}
	}
	return 0, ""
}

// Stands reports whether a mark counts: what the generation was left for is staged, or came to be current. A power cut leaves marks
// of a going back that came to nothing. A damaged mark counts, as nobody knows.
func (in Input) Stands(l store.Left) bool {
	return l.For == 0 || in.cameAbout(l.For) || in.awaits(l) || in.sameAssigned(in.Current, l.For)
}

// cameAbout reports whether a generation is, or was, the current one.
func (in Input) cameAbout(n uint64) bool {
	return n == in.Current || n == in.Previous ||
		slices.ContainsFunc(in.Trials, func(t store.Trial) bool { return t.Generation == n && !t.Good.IsZero() }) ||
		slices.ContainsFunc(in.Lives, func(l store.Live) bool { return l.From == n })
}

// awaits reports whether what a generation was left for is staged and can be tried, with what was attached and detached here since.
func (in Input) awaits(l store.Left) bool {
	return in.tries(in.Staged) && (l.For == in.Staged || in.sameAssigned(in.Staged, l.For))
}

// Means reports whether a mark is about these modules: they are those of the generation that was left, or would be without what is attached
// and detached here. The latter doesn't go for what has of the platform's modules the same as the generation that was left for:
// going there undoes nothing.
func (in Input) Means(l store.Left, modules []store.GenerationModule) bool {
	g, ok := in.generation(l.Generation)
	if !ok || sameModules(g.Modules, modules) {
		return ok
	}
	instead, ok := in.generation(l.For)
	want := in.assigned(modules, modules)
	return ok && sameModules(in.assigned(g.Modules, modules), want) && !sameModules(in.assigned(instead.Modules, modules), want)
}

// sameAssigned reports whether two generations have the same of the platform's modules, but for what is attached and detached here.
func (in Input) sameAssigned(n, other uint64) bool {
	a, isOne := in.generation(n)
	b, isAnother := in.generation(other)
	if !isOne || !isAnother {
		return false
	}
	assigned := in.assigned(a.Modules, a.Modules)
	return len(assigned) > 0 && sameModules(assigned, in.assigned(b.Modules, a.Modules))
}

// assigned returns those of the modules that the platform has assigned and that nothing goes before here, which among has attached.
func (in Input) assigned(modules, among []store.GenerationModule) []store.GenerationModule {
	here := slices.Clone(in.Detached)
	for _, m := range among {
		if m.ID == "" {
			here = append(here, m.Name)
		}
	}
	return slices.DeleteFunc(slices.Clone(modules), func(m store.GenerationModule) bool {
		return m.ID == "" || slices.Contains(here, m.Name)
	})
}

func (in Input) generation(n uint64) (store.Generation, bool) {
	i := slices.IndexFunc(in.Generations, func(g store.Generation) bool { return n != 0 && g.Number == n })
	if i < 0 {
		return store.Generation{}, false
	}
	return in.Generations[i], true
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
