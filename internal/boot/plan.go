package boot

import (
	"context"
	"errors"
	"fmt"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/store"
)

// plan is what this boot is going to run.
type plan struct {
	wanted []assemble.Wanted
	// expected is the root digest that the platform computed for it; zero where it didn't say.
	expected fsverity.Digest
	// ran are the generations that ran before and weren't tried yet in this boot, best first.
	ran []store.Generation
	// back is the generation that the plan fell back to; zero while it is the platform's.
	back store.Generation
}

// ranBefore returns the generations that are a way back: the current one, then the one before it.
// What can't be read of them makes err, and the rest is returned all the same.
func ranBefore(st *store.Store) ([]store.Generation, error) {
	var ran []store.Generation
	var errs []error
	for _, name := range []store.PointerName{store.Current, store.Previous} {
		n, err := st.Pointer(name)
		if err == nil && n == 0 {
			continue
		}
		var g store.Generation
		if err == nil {
			g, err = st.Generation(n)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		ran = append(ran, g)
	}
	return ran, errors.Join(errs...)
}

// fallBack replaces the plan by the best generation that wasn't tried yet, because of reason,
// which is kept as a remark. Where there is none it returns reason. A generation of the plan's own
// modules is passed over: it would fail for the same reason.
func (b *boot) fallBack(reason error) error {
	for len(b.plan.ran) > 0 {
		g := b.plan.ran[0]
		b.plan.ran = b.plan.ran[1:]
		wanted, err := assemble.WantedOf(b.store, g)
		if err != nil {
			reason = fmt.Errorf("%w; nor can generation %d be used: %w", reason, g.Number, err)
			continue
		}
		if assemble.Same(wanted, b.plan.wanted) {
			continue
		}
		b.remark(fmt.Sprintf("%v; staying with generation %d", reason, g.Number), fault.HintOf(reason))
		b.plan.wanted, b.plan.back, b.plan.expected = wanted, g, fsverity.Digest{}
		if fault.KindOf(reason) != fault.Retry {
			b.facts.Refused = fault.OneLine(reason.Error())
		}
		return nil
	}
	return reason
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
			if reason = step(ctx); reason != nil {
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
	b.facts.Remarks = append(b.facts.Remarks, text)
	b.console("          remark: %s", text)
}

// console prints one line. What comes from a registry or the platform can't make it two, nor pass
// for a stage's.
func (b *boot) console(format string, args ...any) {
	fmt.Fprintln(b.config.Console, fault.OneLine(fmt.Sprintf(format, args...)))
}
