package change

import (
	"errors"
	"fmt"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/store"
)

// stage has the next boot try a generation. held says that nothing but obstacles in the running system keeps it from going live.
func (w *work) stage(g store.Generation, held bool) error {
	n := g.Number
	if n == w.known.Current {
		n = 0 // it is what the next boot takes by itself
	}
	if err := w.pointTo(g, n); err != nil {
		return err
	}
	w.result.Outcome = Staged
	if held {
		if err := w.c.writeRun(HeldName, heldUp{g.Number}); err != nil {
			w.remark(fault.OneLine(err.Error())) // then it waits for the boot, like others
		}
	}
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
	j := journal{From: w.from.Number, To: g.Number, Points: true, Staged: n, Before: b, Anew: n != 0}
	err := error(nil)
	if journals {
		err = w.journal(j)
	}
	if err == nil {
		err = w.say()
	}
	if err == nil {
		err = w.leave(g)
	}
	if err == nil && journals {
		err = removeRun(c.RunDir, HeldName, c.Hook) // of a generation that may be staged again for another reason
	}
	if err == nil {
		err = c.Store.SetPointer(store.Staged, n)
	}
	if err == nil {
		err = c.pointed(j, g)
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

// pointed has the records follow from what the pointer says now.
func (c *Changer) pointed(j journal, g store.Generation) error {
	if err := c.settle(j); err != nil {
		return err
	}
	return c.takenUp(g.Modules, j.Staged)
}

// HeldName is of a generation that is staged only because of what is in the way of a live change; in the directory of this boot.
const HeldName = "held.json"

type heldUp struct {
	Generation uint64 `json:"generation"`
}

// isHeld reports whether nothing but obstacles, which may be gone, kept what is staged from going live.
func (c *Changer) isHeld(staged uint64) bool {
	var h heldUp
	ok, err := readRun(c.RunDir, HeldName, &h)
	return ok && err == nil && staged != 0 && h.Generation == staged
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
	if done {
		var g store.Generation
		if g, err = c.Store.Generation(j.To); err == nil {
			err = c.pointed(j, g)
		}
	} else {
		err = c.restore(j.Before, j.To)
	}
	if err != nil {
		return false, err
	}
	return done, removeRun(c.RunDir, JournalName, c.Hook)
}
