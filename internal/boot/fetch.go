package boot

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/trial"
)

// fetch asks the platform what to run and brings it into the store. Without the platform, or with
// a module that can't be had, a node that has run before goes on with what ran.
func (b *boot) fetch(ctx context.Context) (string, error) {
	if b.plan.back.Generation == 0 {
		err := b.bounded(ctx, chooseMost, b.choose)
		if err != nil && b.disowned(err) {
			err = b.chooseAnew(ctx, err)
		}
		if err != nil && ctx.Err() == nil {
			err = b.fallBack(err)
		}
		if err != nil {
			return "", err
		}
	}
	if c := b.plan.back; c.Generation != 0 {
		why := ""
		if c.IsTrial || c.Generation == b.settings.Generation {
			why = ", " + c.Why
		}
		return fmt.Sprintf("nothing; generation %d has %d modules%s", c.Generation, len(b.plan.wanted), why), nil
	}
	p := b.facts.Pulled
	return fmt.Sprintf("%d modules, %d of them pulled: %d layers, %d bytes, %d new objects", len(b.plan.wanted), p.Modules, p.Layers, p.Bytes, p.NewObjects), nil
}

// chooseMost bounds what a node spends on the platform's list that has something else to run: what was fetched by then
// is there for the next boot.
const chooseMost = 10 * time.Minute

// choose makes the generation that the operator asks for the plan, or else the platform's list once
// all of it is in the store.
func (b *boot) choose(ctx context.Context) error {
	if c, ok := b.asked(); ok {
		return b.take(c)
	}
	if b.plan.known.Asked != 0 {
		b.remark(fmt.Sprintf("generation %d, asked for on the kernel command line, can't be had", b.plan.known.Asked), "")
	}
	if err := b.needNetwork(ctx); err != nil {
		return err
	}
	return b.fetchAssigned(ctx)
}

// fetchAssigned makes the platform's list the plan once all of it is in the store.
func (b *boot) fetchAssigned(ctx context.Context) error {
	r, err := b.reconcile()
	if err != nil {
		return err
	}
	plan, err := r.Fetch(ctx)
	if err != nil {
		return err
	}
	b.reached = true
	b.facts.Pulled = Pulled(plan.Pulled)
	for _, text := range plan.Remarks {
		b.remark(text, "")
	}
	if err := plan.Err(); err != nil {
		return err
	}
	// The list is what is wanted also where it isn't to be tried: what it is made of is passed over.
	b.plan.wanted, b.plan.expected = plan.Wanted, plan.Expected
	refused := trial.Refused
	if b.config.Health == AtHandOver {
		refused = trial.Left // nothing is tried there, and what somebody went back from stays left
	}
	if n, why := refused(b.input(), asModules(plan.Wanted)); n != 0 {
		return fault.New(fault.Refuse, fault.Service, "assign other modules, or boot it once more with powernode.generation="+fmt.Sprint(n),
			"the platform assigns the modules of generation %d, which isn't tried any more: %s", n, why)
	}
	if b.config.Health == AtHandOver {
		return nil
	}
	return b.passedOver(plan.Wanted)
}

// asModules returns what trial compares of modules.
func asModules(wanted []assemble.Wanted) []store.GenerationModule {
	out := make([]store.GenerationModule, len(wanted))
	for i, w := range wanted {
		out[i] = store.GenerationModule{ID: w.ID, Name: w.Name, Version: w.Version, ManifestDigest: w.ManifestDigest, EffectivePriority: w.EffectivePriority}
	}
	return out
}

// reconcile returns what fetches, proves and composes for this boot, with the credentials that
// enroll found.
func (b *boot) reconcile() (*reconcile.Reconciler, error) {
	if b.reconciler != nil {
		return b.reconciler, nil
	}
	config := reconcile.Config{
		Store: b.store, Verifier: b.trust.Verifier, Credentials: b.credentials, Arch: runtime.GOARCH,
		Level: b.level, Now: b.now, Prepare: b.prepareCall, Patience: b.patience(), Deep: b.doubted(),
		Progress: func(name string, total int64) (func(int64), func(error)) {
			d := b.config.Progress(name, total)
			return d.Add, d.Done
		},
		Notify: b.notify, Desire: b.desire,
	}
	client, err := b.platform()
	switch {
	case err == nil:
		config.Platform = client
	case !errors.Is(err, errNotEnrolled):
		return nil, err
	}
	b.reconciler, err = reconcile.New(config)
	return b.reconciler, err
}

// patience returns how long to ask the platform: briefly where there is something to run without
// it. In namespaces somebody is waiting who can look into it.
func (b *boot) patience() reconcile.Patience {
	switch {
	case len(b.candidates()) > 0:
		return reconcile.Brief()
	case b.mode == Namespace:
		return reconcile.Patience{}
	default:
		return reconcile.Long()
	}
}

// doubted reports whether a boot before this one began and didn't come good, or its system was never heard
// of, or something of it can't be read: what is damaged may be where nothing looks that only asks the kernel.
func (b *boot) doubted() bool {
	if b.deep {
		return true
	}
	if b.silence.times > 0 {
		b.voice.say("          the system of the last boot wasn't heard of: every byte is read")
		return true
	}
	for _, t := range b.plan.known.Trials {
		if t.Attempts > 0 && t.Good.IsZero() && t.Failed == "" {
			return true
		}
	}
	return false
}
