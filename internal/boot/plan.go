package boot

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/trial"
)

// plan is what this boot is going to run.
type plan struct {
	wanted []assemble.Wanted
	// expected is the root digest that the platform computed for it; zero where it didn't say.
	expected fsverity.Digest
	// known is what the store holds, and what was asked.
	known trial.Input
	// back is the candidate that the plan fell back to; zero while it is the platform's list.
	back trial.Candidate
	// unfit says of generations why they can't be used in this boot.
	unfit map[uint64]string
}

// survey reads what the store has to boot. What of the pointers, and of what they name, can't be read
// makes err, and the rest counts all the same. A damaged generation that nothing names is nobody's loss.
func (b *boot) survey() error {
	in, _ := trial.Read(b.store)
	in.Asked, in.Limit = b.settings.Generation, b.settings.Tries
	b.plan.known = b.renewed(in)
	var errs []error
	for _, name := range []store.PointerName{store.Current, store.Previous, store.Staged} {
		n, err := b.store.Pointer(name)
		if err == nil && n != 0 {
			_, err = b.store.Generation(n)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// renewed records what is to be tried anew: what the operator can ask for once more, and on a machine that
// has waited long enough with nothing to boot, what only used up its attempts.
func (b *boot) renewed(in trial.Input) trial.Input {
	changes := trial.Unasked(in)
	if b.patient {
		changes = append(changes, trial.Again(in)...)
	}
	for _, t := range changes {
		// At worst the operator's next wish isn't known from the last one, or a round isn't begun.
		_ = b.store.PutTrial(t)
	}
	if len(changes) > 0 {
		in.Trials, _ = b.store.Trials() // damaged ones are in it, as exhausted
	}
	return in
}

// input returns what is known now, for package trial.
func (b *boot) input() trial.Input {
	in := b.plan.known
	in.Unfit = maps.Clone(b.plan.unfit)
	return in
}

// candidates returns the generations that may be booted, best first. On a disk that can only be read no
// attempt can be counted, so that what is known to be good comes first there.
func (b *boot) candidates() []trial.Candidate {
	list := trial.Order(b.input())
	if b.persist.ReadOnly {
		slices.SortStableFunc(list, func(x, y trial.Candidate) int {
			switch {
			case x.IsTrial == y.IsTrial:
				return 0
			case y.IsTrial:
				return -1
			}
			return 1
		})
	}
	return list
}

// asked returns the candidate that the operator named on the kernel command line, if it may be booted.
func (b *boot) asked() (trial.Candidate, bool) {
	if list := b.candidates(); b.plan.known.Asked != 0 && len(list) > 0 && list[0].Generation == b.plan.known.Asked {
		return list[0], true
	}
	return trial.Candidate{}, false
}

// generationOf returns the record of a generation that survey found.
func (b *boot) generationOf(n uint64) store.Generation {
	for _, g := range b.plan.known.Generations {
		if g.Number == n {
			return g
		}
	}
	return store.Generation{}
}

// take makes a generation of the store the plan.
func (b *boot) take(c trial.Candidate) error {
	wanted, err := assemble.WantedOf(b.store, b.generationOf(c.Generation))
	if err != nil {
		return err
	}
	b.plan.wanted, b.plan.back, b.plan.expected = wanted, c, fsverity.Digest{}
	return nil
}

// fallBack replaces the plan by the best generation that wasn't tried yet, because of reason,
// which is kept as a remark. Where there is none it returns reason. A generation of the plan's own
// modules is passed over: it would fail for the same reason.
func (b *boot) fallBack(reason error) error {
	if n := b.plan.back.Generation; n != 0 {
		b.reject(n, reason)
	}
	failed := b.plan.wanted
	for _, c := range b.candidates() {
		if err := b.take(c); err != nil {
			reason = fmt.Errorf("%w; nor can generation %d be used: %w", reason, c.Generation, err)
			b.reject(c.Generation, err)
			continue
		}
		if assemble.Same(b.plan.wanted, failed) {
			b.reject(c.Generation, reason)
			continue
		}
		way := "staying with"
		if c.IsTrial {
			way = "going on with"
		}
		b.remark(fmt.Sprintf("%v; %s generation %d", reason, way, c.Generation), fault.HintOf(reason))
		// A disk that is full is no outage: the platform's list stands, and isn't followed.
		if fault.KindOf(reason) != fault.Retry || fault.AreaOf(reason) == fault.Mount {
			b.facts.Refused = fault.OneLine(reason.Error())
		}
		return nil
	}
	b.plan.wanted, b.plan.back = failed, trial.Candidate{}
	return reason
}

// reject leaves a generation out for the rest of this boot.
func (b *boot) reject(n uint64, reason error) {
	if b.plan.unfit == nil {
		b.plan.unfit = make(map[uint64]string)
	}
	b.plan.unfit[n] = oneLine(reason)
}

// bounded runs a step under a deadline of its own where there is another generation to fall back to, so that there is
// time left for that: most, or with 0 half of what ctx has left. Passing it is a retry.
func (b *boot) bounded(ctx context.Context, most time.Duration, step func(context.Context) error) error {
	end, limited := ctx.Deadline()
	another := slices.ContainsFunc(b.candidates(), func(c trial.Candidate) bool { return c.Generation != b.plan.back.Generation })
	if !another || most == 0 && !limited {
		return step(ctx)
	}
	if half := time.Until(end) / 2; limited && (most == 0 || half < most) {
		most = half
	}
	within, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	err := step(within)
	if err != nil && within.Err() != nil && ctx.Err() == nil {
		return fault.New(fault.Retry, fault.AreaOf(err), fault.HintOf(err), "not done within %s: %w", most.Round(time.Second), err)
	}
	return err
}

// insteadOf falls back because of reason until every step succeeds for the plan, and otherwise
// returns why the last one didn't.
func (b *boot) insteadOf(ctx context.Context, reason error, steps ...func(context.Context) error) error {
	for reason != nil && ctx.Err() == nil {
		if err := b.fallBack(reason); err != nil {
			return err
		}
		reason = nil
		for _, step := range steps {
			if reason = b.bounded(ctx, 0, step); reason != nil {
				break
			}
		}
	}
	return reason
}

// remark keeps something that a person should know, and says it on the console.
func (b *boot) remark(text, hint string) {
	if hint != "" {
		text += "; " + hint
	}
	if !slices.Contains(b.facts.Remarks, text) {
		b.facts.Remarks = append(b.facts.Remarks, text)
	}
	b.voice.say("          remark: %s", text)
}

func oneLine(err error) string { return fault.OneLine(err.Error()) }

func refused(err error) bool { return fault.KindOf(err) == fault.Refuse }
