package change

import (
	"errors"
	"fmt"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/store"
)

// stage has the next boot try a generation.
func (w *work) stage(g store.Generation) error {
	n := g.Number
	if n == w.known.Current {
		n = 0 // it is what the next boot takes by itself
	}
	if err := w.pointTo(g, n); err != nil {
		return err
	}
	w.result.Outcome = Staged
	if old := w.known.Staged; old != 0 && old != g.Number && old != w.base.Number && w.request.Kind != Update {
		w.remark(fmt.Sprintf("generation %d was staged, and isn't any more; powernode-agent update brings what the platform assigns", old))
	}
	return nil
}

// withdraw has the next boot take what runs, instead of what is staged.
func (w *work) withdraw() error {
	if err := w.pointTo(w.from, 0); err != nil {
		return err
	}
	w.result.Outcome = Withdrawn
	return nil
}

// pointTo makes generation n the staged one, or none, as what makes g run next, and has the records say so. The pointer comes last:
// until it is set, whatever goes wrong is taken back.
func (w *work) pointTo(g store.Generation, n uint64) error {
	c, b := w.c, w.before(g.Number)
	journals := c.System != nil && c.RunDir != ""
	err := error(nil)
	if journals {
		err = w.journal(journal{From: w.from.Number, To: g.Number, Points: true, Staged: n, Before: b})
	}
	if err == nil {
		err = w.say()
	}
	if err == nil {
		err = w.leave(g)
	}
	if err == nil {
		err = c.takenUp(g.Modules, n)
	}
	switch {
	case err != nil:
	case n == 0:
		err = c.Store.SetPointer(store.Staged, 0)
	default:
		err = c.Store.Stage(n)
	}
	if err != nil {
		restored := c.restore(b, g.Number)
		if restored == nil && journals {
			restored = removeRun(c.RunDir, JournalName, c.Hook)
		}
		return errors.Join(err, restored)
	}
	if journals {
		if err := removeRun(c.RunDir, JournalName, c.Hook); err != nil {
			w.remark(fmt.Sprintf("the change is done, and its journal is there still: %s", fault.OneLine(err.Error())))
		}
	}
	return nil
}

// leave records that what runs is left for good, where somebody goes back from it. Until the generation that takes its place is
// current, or staged, it doesn't count.
func (w *work) leave(g store.Generation) error {
	if !w.wanted.withdraws || w.from.Number == 0 || w.from.Number == g.Number || assemble.Same(w.from.Modules, g.Modules) {
		return nil
	}
	return w.c.Store.PutLeft(store.Left{Generation: w.from.Number, For: g.Number, At: w.c.Now()})
}

// recoverPointer brings a change to its end that somebody left who was killed while it changed what the next boot takes. It
// says whether it counts.
func (c *Changer) recoverPointer(j journal) (bool, error) {
	staged, err := c.Store.Pointer(store.Staged)
	if err != nil {
		return false, err
	}
	done := staged == j.Staged && staged != j.Before.Staged
	if !done {
		err = c.restore(j.Before, j.To)
	}
	if err != nil {
		return false, err
	}
	return done, removeRun(c.RunDir, JournalName, c.Hook)
}
