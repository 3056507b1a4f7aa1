package boot

import (
	"context"
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
	// last is the generation that ran before, to fall back to; zero on a first boot.
	last store.Generation
	// fellBack is set once wanted is last's.
	fellBack bool
	fresh    assemble.Fresh
}

// fallBack replaces the plan by the last generation, because of reason, which is kept as a
// remark. Where there is none, or it was the plan already, it returns reason.
func (b *boot) fallBack(reason error) error {
	if b.plan.fellBack || b.plan.last.Number == 0 {
		return reason
	}
	wanted, err := assemble.WantedOf(b.store, b.plan.last)
	if err != nil {
		return fmt.Errorf("%w; nor can the last generation be used: %w", reason, err)
	}
	if sameWanted(wanted, b.plan.wanted) {
		return reason // it would fail for the same reason
	}
	b.remark(fmt.Sprintf("%v; staying with generation %d", reason, b.plan.last.Number), fault.HintOf(reason))
	b.plan.wanted, b.plan.fellBack, b.plan.expected = wanted, true, fsverity.Digest{}
	return nil
}

// sameWanted reports whether both ask for the same modules.
func sameWanted(a, b []assemble.Wanted) bool {
	in := make(map[assemble.Wanted]bool, len(a))
	for _, w := range a {
		in[w] = true
	}
	for _, w := range b {
		if !in[w] {
			return false
		}
	}
	return len(a) == len(b)
}

// remark keeps something that a person should know, and says it on the console.
func (b *boot) remark(text, hint string) {
	if hint != "" {
		text += "; " + hint
	}
	b.facts.Remarks = append(b.facts.Remarks, text)
	fmt.Fprintf(b.config.Console, "          remark: %s\n", text)
}

// verify proves every module of the plan from the store, whatever fetch did: signature, seal,
// objects. A plan that can't be proven gives way to the last generation, proven likewise.
func (b *boot) verify(ctx context.Context) (string, error) {
	err := b.prove(ctx)
	if err != nil && ctx.Err() == nil {
		if err = b.fallBack(err); err == nil {
			err = b.prove(ctx)
		}
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d modules: signature, seal and objects of each", len(b.proven)), nil
}

func (b *boot) prove(ctx context.Context) error {
	prover := assemble.Prover{Store: b.store, Verifier: b.verifier, Fresh: b.plan.fresh.Set()}
	b.proven = b.proven[:0]
	for _, w := range b.plan.wanted {
		p, err := prover.Prove(ctx, w)
		if err != nil {
			return err
		}
		b.proven = append(b.proven, p)
	}
	return nil
}

// compose makes the root image and records it as the current generation.
func (b *boot) compose(ctx context.Context) (string, error) {
	c, err := assemble.Compose(b.proven)
	if err != nil && fault.KindOf(err) == fault.Refuse {
		// The modules don't go together, which the last generation's did.
		if err = b.fallBack(err); err == nil {
			if err = b.prove(ctx); err == nil {
				c, err = assemble.Compose(b.proven)
			}
		}
	}
	if err != nil {
		return "", err
	}
	if b.generation, err = c.Keep(b.store, "boot", string(b.level), b.config.Now()); err != nil {
		return "", err
	}
	if err := b.store.Promote(b.generation.Number); err != nil {
		return "", err
	}
	f := &b.facts
	f.Generation, f.RootDigest, f.Level, f.ExpectedRootDigest = b.generation.Number, c.RootDigest, b.level, b.plan.expected
	f.Files, f.Shared, f.Conflict = c.Report.Entries, c.Report.Shared, len(c.Report.Conflicts)
	if e := b.plan.expected; !e.IsZero() && e != c.RootDigest {
		// Every byte is proven all the same, so this is no reason to leave the node without a root.
		b.remark(fmt.Sprintf("the platform computed another root digest, %s", e), "bring agent and platform to the same release")
	}
	return fmt.Sprintf("generation %d, %d files, %d conflicts", b.generation.Number, c.Report.Entries, len(c.Report.Conflicts)), nil
}
