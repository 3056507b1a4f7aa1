package change

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/change/desired"
	"github.com/powernode/powernode-agent/internal/compose"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/store"
)

// lookAt finds out what each wanted module is, and puts in the place of one that is refused, or whose registry can't be reached, what runs of
// it. Where no module can be looked at for that, the whole may go well another time.
func (w *work) lookAt(ctx context.Context) error {
	looked := false
	for _, a := range w.wanted.assigned {
		var offer *assemble.Offer
		err := w.ask(ctx, a.Repository, func() (err error) {
			offer, err = w.c.Reconciler.Look(ctx, w.floors.Apply(a))
			return err
		})
		switch {
		case err == nil:
			looked = true
			w.parts = append(w.parts, part{assigned: a, offer: offer, want: offer.Wanted, seal: offer.Sealed.Seal, manifest: offer.Sealed.Manifest})
		case w.single(), retryable(ctx, err) && !outage(ctx, err):
			return err
		default:
			if w.down == nil && outage(ctx, err) {
				w.down = err
			}
			w.instead(part{assigned: a}, err)
		}
	}
	if w.down != nil && !looked {
		return w.down
	}
	w.parts = append(w.parts, w.wanted.kept...)
	return nil
}

// single reports whether all that is asked for is one module to be attached: what is wrong with it is the answer.
func (w *work) single() bool { return w.request.Kind == Attach && len(w.request.Modules) == 1 }

// instead notes that a module can't be used, and puts what runs of it in its place, if that is something else.
func (w *work) instead(p part, reason error) {
	name, version := p.assigned.Name, p.assigned.Version
	if w.request.Kind == Attach && !slices.Contains(w.base.Modules, p.record()) {
		// What can't be attached isn't the administrator's word either.
		w.wanted.local = w.wanted.local.As(w.local, name)
	}
	f := Failure{Name: name, Version: version, Reason: fault.OneLine(reason.Error()), Unreached: unreached(reason)}
	w.parts = slices.DeleteFunc(w.parts, func(o part) bool { return o.assigned.Name == name })
	for _, g := range slices.Concat(w.stagedOf(p, f.Unreached), w.base.Modules, w.from.Modules) {
		// The same manifest with another priority is something else: what it does there may be wrong, and what runs is right.
		if g.Name != name || g == p.record() {
			continue
		}
		kept, err := keptPart(w.c.Store, g)
		if err != nil {
			continue
		}
		// The module is still wanted in the version that was refused.
		kept.assigned = p.assigned
		f.Kept = g.Version
		w.parts = append(w.parts, kept)
		break
	}
	w.result.Failed = append(w.result.Failed, f)
}

// stagedOf returns what is staged of a module in the version that is wanted, where that can't be asked for now: an outage takes back nothing that is
// to run at the next boot.
func (w *work) stagedOf(p part, unreached bool) []store.GenerationModule {
	if !unreached {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(w.staged().Modules), func(g store.GenerationModule) bool {
		return g.Name != p.assigned.Name || g.Version != p.assigned.Version
	})
}

// composed is a root that was composed. Its image is made meanwhile.
type composed struct {
	modules []*assemble.Proven
	result  *compose.Result
	// image waits for the image.
	image func() (*assemble.Composition, error)
}

// compose has every module proven and composes them, leaving out what can't be used. It returns nil where nothing is left to
// be done.
func (w *work) compose(ctx context.Context) (*composed, error) {
	for {
		before := len(w.result.Failed)
		if err := w.obtain(ctx); err != nil {
			return nil, err
		}
		for _, m := range w.c.Reconciler.Mended() {
			if !slices.Contains(w.result.Mended, m.String()) {
				w.result.Mended = append(w.result.Mended, m.String())
			}
		}
		if done, err := w.settled(before); done || err != nil {
			return nil, err
		}
		out, err := w.leaveOutRefused()
		if err != nil {
			return nil, err
		}
		if out {
			if done, err := w.settled(before); done || err != nil {
				return nil, err
			}
			continue
		}
		result, err := assemble.Merge(w.proven)
		if trespass, ok := errors.AsType[*compose.ProtectedError](err); ok {
			if !w.single() && w.leaveOut(trespass, err) {
				if done, err := w.settled(before); done || err != nil {
					return nil, err
				}
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		c := &composed{modules: w.proven, result: result}
		c.image = sync.OnceValues(func() (*assemble.Composition, error) { return assemble.Build(c.modules, c.result) })
		return c, nil
	}
}

// settled looks again at whether anything is to be done, where modules were left out since so many had been.
func (w *work) settled(before int) (bool, error) {
	if len(w.result.Failed) == before {
		return false, nil
	}
	w.result.compare(w.from, w.parts)
	if w.cut != nil && len(w.result.Changes) == 0 {
		return true, w.cut // there is nothing else to do
	}
	if len(w.parts) == 0 {
		return true, noneUsable(len(w.wanted.names()), w.result)
	}
	if err := w.guard(); err != nil {
		return true, err
	}
	return w.asItIs()
}

// guard looks again at what is taken from the node, where modules were left out: nobody meant those, whatever was meant of the
// others.
func (w *work) guard() error {
	asked, left := w.wanted.names(), make([]reconcile.Assigned, len(w.parts))
	for i, p := range w.parts {
		left[i].Name = p.want.Name
	}
	stay := slices.DeleteFunc(slices.Clone(w.from.Modules), func(m store.GenerationModule) bool {
		return !slices.ContainsFunc(asked, func(a reconcile.Assigned) bool { return a.Name == m.Name })
	})
	err := desired.Guard(stay, left, false)
	if err == nil {
		err = desired.Guard(w.from.Modules, left, w.request.RemoveMost || w.wanted.removeMost)
	}
	if err == nil {
		return nil
	}
	reasons := make([]string, len(w.result.Failed))
	for i, f := range w.result.Failed {
		reasons[i] = f.Name + ": " + f.Reason
	}
	return fault.New(fault.Refuse, fault.Policy, "see the reasons", "%w; modules that can't be used are among them: %s", err, strings.Join(reasons, "; "))
}

// obtain proves the modules, those that aren't in the store once they were pulled.
func (w *work) obtain(ctx context.Context) error {
	have := make(map[string]*assemble.Proven)
	for _, p := range append(w.proven, w.running(ctx)...) {
		have[p.Wanted.ManifestDigest] = p
	}
	w.proven = nil
	for _, p := range slices.Clone(w.parts) {
		got := have[p.want.ManifestDigest]
		var err error
		if got == nil || got.Wanted != p.want {
			got, err = w.obtainOne(ctx, p)
		}
		if err != nil && p.offer != nil && (outage(ctx, err) || !retryable(ctx, err)) && !w.single() {
			// What came isn't what was signed, or nothing came. What runs is proven in its stead.
			if w.cut == nil && outage(ctx, err) {
				w.cut = err
			}
			w.instead(p, err)
			i := slices.IndexFunc(w.parts, func(o part) bool { return o.assigned.Name == p.assigned.Name })
			if i < 0 {
				continue
			}
			got, err = w.c.Reconciler.ProveOne(ctx, w.parts[i].want)
		}
		if err != nil {
			return err
		}
		w.proven = append(w.proven, got)
	}
	return nil
}

// obtainOne has one module proven. A dry run reads what isn't in the store, and keeps nothing.
func (w *work) obtainOne(ctx context.Context, p part) (*assemble.Proven, error) {
	if p.offer == nil || p.offer.Here && w.request.DryRun {
		return w.c.Reconciler.ProveOne(ctx, p.want)
	}
	if p.offer.Here {
		return w.bring(ctx, p)
	}
	var got *assemble.Proven
	err := w.ask(ctx, p.want.Repository, func() (err error) {
		if w.request.DryRun {
			got, err = w.c.Reconciler.Peek(ctx, p.offer)
		} else {
			got, err = w.bring(ctx, p)
		}
		return err
	})
	return got, err
}

// bring has one module that was looked at in the store, and proven.
func (w *work) bring(ctx context.Context, p part) (*assemble.Proven, error) {
	fetched, err := w.c.Reconciler.Bring(ctx, p.offer)
	if err != nil {
		return nil, err
	}
	w.result.Pulled.Add(fetched.Pulled)
	return w.c.Reconciler.ProveOne(ctx, p.want)
}

// running proves the modules of the root that runs which stay as they are, once.
func (w *work) running(ctx context.Context) []*assemble.Proven {
	if w.c.Running.Generation == 0 || len(w.proven) > 0 {
		return nil
	}
	var wanted []assemble.Wanted
	for _, p := range w.parts {
		if w.runs(p) && (p.offer == nil || p.offer.Here) {
			wanted = append(wanted, p.want)
		}
	}
	return w.c.Reconciler.ProveRunning(ctx, wanted)
}

// leaveOut leaves out one of two modules that disagree about a protected path: the intruder, unless that is what runs and the
// other one is what is new. It reports whether there was something to leave out.
func (w *work) leaveOut(trespass *compose.ProtectedError, err error) bool {
	for _, name := range []string{trespass.Intruder, trespass.Owner} {
		i := slices.IndexFunc(w.parts, func(p part) bool { return p.want.Name == name })
		if i < 0 || w.runs(w.parts[i]) {
			continue
		}
		p := w.parts[i]
		w.instead(p, fmt.Errorf("%w", err))
		w.proven = slices.DeleteFunc(w.proven, func(m *assemble.Proven) bool { return m.Wanted.Name == name })
		return true
	}
	return false
}

// runs reports whether a module is part of what runs, as it is.
func (w *work) runs(p part) bool { return slices.Contains(w.from.Modules, p.record()) }
