package retain

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/store"
)

// Back returns the generation that a rollback without a number goes to: the last good one before the one that
// runs, or 0 where there is none. That is the current one, while another runs on trial; else the previous one;
// else the newest good one that is older, or any good one. One that holds the same as what runs is none, nor is one
// that was found bad, that no boot proved, or that somebody went back from before: a second rollback goes further.
func Back(in Input) uint64 {
	runs := in.Running
	if runs == 0 {
		runs = in.Current
	}
	running, _ := in.generation(runs)
	fits := func(n uint64) bool {
		g, ok := in.generation(n)
		left := in.Left(n)
		return ok && n != runs && (left.Generation == 0 || !in.Stands(left)) && HealthOf(in, n).State == Good && (g.RootDigest != running.RootDigest || !assemble.Same(g.Modules, running.Modules))
	}
	candidates := []uint64{in.Current, in.Previous}
	numbers := in.numbers()
	slices.Reverse(numbers)
	for _, older := range []bool{true, false} {
		for _, n := range numbers {
			if n < runs == older {
				candidates = append(candidates, n)
			}
		}
	}
	if i := slices.IndexFunc(candidates, fits); i >= 0 {
		return candidates[i]
	}
	return 0
}

// RollbackCause is the cause of a generation that goes back to generation n.
func RollbackCause(n uint64) string { return fmt.Sprintf("rollback to %d", n) }

// Renew stores a generation of the same modules and the same root as generation n under a new number, for a rollback
// to it, once it is sure that all of it is here: records, objects, and the root image whole. Signatures are not
// looked at: whoever makes it run proves it first, by the trust policy of today.
func Renew(ctx context.Context, st *store.Store, n uint64, now time.Time) (store.Generation, error) {
	if err := st.Hold(); err != nil {
		return store.Generation{}, err
	}
	g, err := st.Generation(n)
	if err == nil {
		err = present(ctx, st, g)
	}
	if err != nil {
		return store.Generation{}, fmt.Errorf("go back to generation %d: %w", n, err)
	}
	g.Created, g.Cause = now.UTC(), RollbackCause(n)
	if g.Number, err = st.PutGeneration(g, nil); err != nil {
		return store.Generation{}, fmt.Errorf("go back to generation %d: %w", n, err)
	}
	return g, nil
}

// present makes sure that everything that a generation refers to is here.
func present(ctx context.Context, st *store.Store, g store.Generation) error {
	const hint = "powernode-agent update fetches what is assigned; choose a generation that is whole"
	for _, m := range g.Modules {
		rec, err := st.GetModule(m.ManifestDigest)
		if err != nil {
			return fault.New(fault.Broken, fault.Verify, hint, "module %s %s: %w", m.Name, m.Version, err)
		}
		if rec.Seal != m.Seal {
			return fault.New(fault.Broken, fault.Verify, hint, "module %s %s has seal %s in the store, and %s in the generation", m.Name, m.Version, rec.Seal, m.Seal)
		}
		missing := 0
		for _, d := range append(rec.Objects, rec.Seal) {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			if !st.HasObject(d) {
				missing++
			}
		}
		if missing > 0 {
			return fault.New(fault.Broken, fault.Verify, hint, "module %s %s: %d of its %d objects aren't in the store", m.Name, m.Version, missing, len(rec.Objects)+1)
		}
	}
	bad, err := st.Damaged(ctx, []fsverity.Digest{g.RootDigest}, true)
	if err != nil {
		return err
	}
	if cause := bad[g.RootDigest]; errors.Is(cause, fs.ErrNotExist) {
		return fault.New(fault.Broken, fault.Verify, hint, "its root image isn't in the store: %w", cause)
	} else if cause != nil {
		return fault.New(fault.Broken, fault.Verify, hint, "its root image: %w", cause)
	}
	return nil
}
