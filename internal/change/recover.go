package change

import (
	"context"
	"fmt"
	"slices"

	"github.com/powernode/powernode-agent/internal/live"
	"github.com/powernode/powernode-agent/internal/store"
)

// Unfinished reports whether a live change was left unfinished, or is under way.
func Unfinished(runDir string) bool {
	var j journal
	ok, err := readRun(runDir, JournalName, &j)
	return ok || err != nil || live.Recoverable(runDir)
}

// Recover brings to its end what a process began that was killed: wholly to the new generation, if that is the current one,
// or back to the old one, with what the administrator had said. It says in a sentence what it did, or "", and keeps the steps that failed. Every
// change begins with it, and so does the service; the caller holds the lock of package reconcile.
func (c *Changer) Recover(ctx context.Context) (string, error) {
	if c.System == nil {
		return "", nil
	}
	var j journal
	began, err := readRun(c.RunDir, JournalName, &j)
	if err != nil {
		return "", err
	}
	current, err := c.Store.Pointer(store.Current)
	if err != nil {
		return "", err
	}
	r, swapped, err := c.System.Recover(ctx, current)
	if err != nil {
		return "", fmt.Errorf("finish a change that was interrupted: %w", err)
	}
	if began && !swapped {
		// After a soft-reboot everything is as after a power cut: what is current runs, and was made by that.
		if root, err := c.System.Root(); err != nil {
			return "", err
		} else if !root.Same(j.Root) {
			return "", removeRun(c.RunDir, JournalName, c.Hook)
		}
	}
	switch {
	case began && j.Points && !swapped:
		done, err := c.recoverPointer(j)
		if err != nil || done {
			return "", err
		}
		return "a change for the next boot was interrupted, and is taken back", nil
	case !began && !swapped:
		return "", nil
	}
	runs := r.Generation
	if !swapped {
		// Before the swap, or after its end: what runs is what is current.
		if runs = j.From; j.To == current {
			runs = j.To
		}
	}
	if began && runs != j.To {
		if err := c.restore(j.Before, j.To); err != nil {
			return "", err
		}
		if err := c.unexpect(j.To); err != nil {
			return "", err
		}
	}
	g, err := c.Store.Generation(runs)
	if err != nil {
		return "", err
	}
	care := j.Aftercare
	if runs != j.To {
		care = back(care)
	}
	remarks := c.System.Resume(ctx, g, care)
	more, err := c.ends(ctx, g, j)
	if err != nil {
		return "", err
	}
	cut := cutOff(r.CutOff, j.Aftercare) // the way back restarts the same, and starts what was stopped
	c.earlier.undone = slices.Concat(r.Remarks, cut, remarks, more)
	if runs == j.To || len(c.earlier.undone) > 0 {
		more = c.keepUndone(c.earlier.undone)
		c.earlier.undone = append(c.earlier.undone, more...)
	}
	if runs == j.To {
		c.earlier.back = c.leadsBack(j)
		return fmt.Sprintf("the change to generation %d was interrupted, and is finished now", runs), nil
	}
	c.earlier.back = !c.leadsBack(j)
	return fmt.Sprintf("a change was interrupted, and is taken back: generation %d runs", runs), nil
}
