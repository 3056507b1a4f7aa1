package reconcile

import (
	"context"
	"fmt"
	"slices"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/trial"
)

// Outcome says what an update came to.
type Outcome string

// The outcomes.
const (
	// InStep: what runs is what is wanted, and nothing else is staged.
	InStep Outcome = "in step"
	// Staged: a generation of what is wanted is staged for the next boot. AlreadyStaged: it was before.
	Staged        Outcome = "staged"
	AlreadyStaged Outcome = "already staged"
	// Withdrawn: what runs is wanted again, and what was staged isn't any more.
	Withdrawn Outcome = "withdrawn"
	// WouldStage and WouldWithdraw are what would be, of a dry run.
	WouldStage    Outcome = "would be staged"
	WouldWithdraw Outcome = "would be withdrawn"
)

// UpdateOptions say how to update.
type UpdateOptions struct {
	// DryRun changes nothing: not even the store.
	DryRun bool
	// Retry tries a set of modules again that failed before.
	Retry bool
}

// part is a module of an update under way.
type part struct {
	listed nodeapi.Module
	offer  *assemble.Offer // nil for what stays from the generation before
	want   assemble.Wanted
	seal   fsverity.Digest
}

func (p part) record() store.GenerationModule {
	return store.GenerationModule{
		ID: p.want.ID, Name: p.want.Name, Version: p.want.Version, ManifestDigest: p.want.ManifestDigest,
		Seal: p.seal, EffectivePriority: p.want.EffectivePriority,
	}
}

func records(parts []part) []store.GenerationModule {
	list := make([]store.GenerationModule, len(parts))
	for i, p := range parts {
		list[i] = p.record()
	}
	return list
}

// Update asks the platform what the node should run, and stages a generation of it for the next boot.
// Nothing changes for what runs. A module that is refused doesn't keep the others: its version of
// the current generation stays in its place. Where the platform or a registry doesn't answer, nothing is
// staged at all. A set of modules that failed its trial is refused, unless o says to try it again.
func (r *Reconciler) Update(ctx context.Context, o UpdateOptions) (*Update, error) {
	list, err := r.List(ctx)
	if err != nil {
		return nil, err
	}
	known, err := trial.Read(r.config.Store)
	u := &Update{DryRun: o.DryRun, Changes: []Change{}}
	if err != nil {
		u.Remarks = append(u.Remarks, err.Error())
	}
	current := generationOf(known, known.Current)
	u.From, u.FromRootDigest = current.Number, current.RootDigest
	u.expect(list)

	parts, err := r.lookAt(ctx, list.Modules, current, u)
	if err != nil {
		return nil, err
	}
	if len(parts) == 0 {
		return nil, noneUsable(len(list.Modules), u)
	}
	u.compare(current, parts)
	if done, err := r.asItIs(known, current, parts, o, u); done || err != nil {
		if err == nil && !o.DryRun && u.Generation == current.Number {
			err = r.healCurrent(ctx, current, u)
		}
		return u, err
	}
	if o.DryRun {
		u.Outcome = WouldStage
		return u, nil
	}
	return u, r.stage(ctx, known, current, parts, o, u)
}

// noneUsable says that each of so many modules was refused.
func noneUsable(assigned int, u *Update) error {
	if assigned == 1 {
		return fault.New(fault.Refuse, fault.Verify, "see the reason", "the assigned module can't be used: %s", u.Failed[0].Reason)
	}
	return fault.New(fault.Refuse, fault.Verify, "see the reasons", "none of the %d assigned modules can be used: %s", assigned, u.Failed[0].Reason)
}

// healCurrent mends what runs where nothing else is wanted.
func (r *Reconciler) healCurrent(ctx context.Context, current store.Generation, u *Update) error {
	mended, err := r.Heal(ctx, current)
	for _, m := range mended {
		u.Mended = append(u.Mended, m.String())
	}
	return err
}

func (u *Update) expect(list *nodeapi.ModuleList) {
	if list.RootDigest == "" {
		return
	}
	var err error
	if u.Expected, err = fsverity.ParseDigest(list.RootDigest); err != nil {
		u.Remarks = append(u.Remarks, "the platform's root digest can't be read: "+err.Error())
	}
}

func generationOf(in trial.Input, n uint64) store.Generation {
	i := slices.IndexFunc(in.Generations, func(g store.Generation) bool { return n != 0 && g.Number == n })
	if i < 0 {
		return store.Generation{}
	}
	return in.Generations[i]
}

// lookAt finds out what each module is, and puts in the place of one that is refused what runs of it.
func (r *Reconciler) lookAt(ctx context.Context, listed []nodeapi.Module, current store.Generation, u *Update) ([]part, error) {
	var parts []part
	for _, m := range listed {
		offer, err := r.Look(ctx, Assigned{Module: m, Origin: ByPlatform})
		switch {
		case err == nil:
			parts = append(parts, part{listed: m, offer: offer, want: offer.Wanted, seal: offer.Sealed.Seal})
		case ctx.Err() != nil || fault.KindOf(err) == fault.Retry:
			return nil, err
		default:
			if kept, ok := r.instead(m, current, err, u); ok {
				parts = append(parts, kept)
			}
		}
	}
	return parts, nil
}

// instead notes that a module can't be used, and returns what stays in its place.
func (r *Reconciler) instead(m nodeapi.Module, current store.Generation, reason error, u *Update) (part, bool) {
	f := Failure{Name: m.Name, Version: m.Version, Reason: fault.OneLine(reason.Error())}
	defer func() { u.Failed = append(u.Failed, f) }()
	for _, g := range current.Modules {
		if g.ID != m.ID || m.ID == "" {
			continue
		}
		rec, err := r.config.Store.GetModule(g.ManifestDigest)
		if err != nil {
			continue
		}
		f.Kept = g.Version
		return part{listed: m, seal: g.Seal, want: assemble.Wanted{
			ID: g.ID, Name: g.Name, Version: g.Version, Repository: rec.Repository, ManifestDigest: g.ManifestDigest, EffectivePriority: g.EffectivePriority,
		}}, true
	}
	return part{}, false
}

// asItIs settles an update for which nothing is to be composed: what is wanted runs, or is staged, or
// was tried and found bad.
func (r *Reconciler) asItIs(known trial.Input, current store.Generation, parts []part, o UpdateOptions, u *Update) (bool, error) {
	wanted := records(parts)
	if current.Number != 0 && assemble.Same(current.Modules, wanted) {
		u.Outcome, u.Generation, u.RootDigest = InStep, current.Number, current.RootDigest
		switch {
		case known.Staged == 0 || known.Staged == current.Number:
		case o.DryRun:
			u.Outcome = WouldWithdraw
		default:
			u.Outcome = Withdrawn
			return true, r.config.Store.SetPointer(store.Staged, 0)
		}
		return true, nil
	}
	if n, reason := trial.Refused(known, wanted); n != 0 && !o.Retry {
		return true, fault.New(fault.Refuse, fault.Policy, "assign another version, or try once more with --retry",
			"generation %d holds exactly these modules and failed its trial: %s", n, reason)
	}
	if staged := generationOf(known, known.Staged); staged.Number != 0 && assemble.Same(staged.Modules, wanted) && !o.Retry {
		u.Outcome, u.Generation, u.RootDigest = AlreadyStaged, staged.Number, staged.RootDigest
		return true, nil
	}
	return false, nil
}

// stage fetches, proves and composes, and has the next boot try it.
func (r *Reconciler) stage(ctx context.Context, known trial.Input, current store.Generation, parts []part, o UpdateOptions, u *Update) error {
	var proven []*assemble.Proven
	var kept []part
	for _, p := range parts {
		got, err := r.bring(ctx, p, u)
		if err != nil && p.offer != nil && ctx.Err() == nil && fault.KindOf(err) != fault.Retry {
			// What came isn't what was signed. What runs is proven in its stead.
			var ok bool
			if p, ok = r.instead(p.listed, current, err, u); !ok {
				continue
			}
			got, err = r.ProveOne(ctx, p.want)
		}
		if err != nil {
			return err
		}
		proven, kept = append(proven, got), append(kept, p)
	}
	for _, m := range r.mended {
		u.Mended = append(u.Mended, m.String())
	}
	if len(kept) < len(parts) || len(proven) == 0 || !slices.EqualFunc(parts, kept, func(a, b part) bool { return a.record() == b.record() }) {
		u.compare(current, kept)
		if len(proven) == 0 {
			return noneUsable(len(parts), u)
		}
		if done, err := r.asItIs(known, current, kept, o, u); done || err != nil {
			return err
		}
	}
	composition, err := r.Compose(ctx, proven)
	if err != nil {
		return err
	}
	g, err := r.Keep(composition, "update")
	if err != nil {
		return err
	}
	if e := u.Expected; !e.IsZero() && e != g.RootDigest && len(u.Failed) == 0 {
		u.Remarks = append(u.Remarks, fmt.Sprintf("the platform computed another root digest, %s; bring agent and platform to the same release", e))
	}
	u.Outcome, u.Generation, u.RootDigest = Staged, g.Number, g.RootDigest
	return r.config.Store.Stage(g.Number)
}

// bring has one module in the store and proven.
func (r *Reconciler) bring(ctx context.Context, p part, u *Update) (*assemble.Proven, error) {
	if p.offer != nil {
		fetched, err := r.fetcher().Bring(ctx, p.offer, &r.fresh)
		if err != nil {
			return nil, err
		}
		u.Pulled.Add(fetched.Pulled)
	}
	return r.ProveOne(ctx, p.want)
}
