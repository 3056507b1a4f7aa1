package change

import (
	"errors"
	"slices"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/change/desired"
	"github.com/powernode/powernode-agent/internal/store"
)

// before is what the directory of record said before a change said anything else: where the change comes to nothing, it says
// so again. What a change that came to nothing leaves may count later, when nobody remembers it.
type before struct {
	// Local is the administrator's word.
	Local desired.Local `json:"local"`
	// Staged and Previous are the pointers.
	Staged   uint64 `json:"staged,omitempty"`
	Previous uint64 `json:"previous,omitempty"`
	// Lefts are all generations that somebody had gone back from.
	Lefts []store.Left `json:"left,omitempty"`
	// Trial and Live are of the generation that the change leads to; nil where there was none.
	Trial *store.Trial `json:"trial,omitempty"`
	Live  *store.Live  `json:"live,omitempty"`
}

// before returns what was known when the change began, with the records of the generation that it leads to.
func (w *work) before(to uint64) before {
	b := before{Local: w.local, Staged: w.known.Staged, Previous: w.known.Previous, Lefts: w.known.Lefts}
	if i := slices.IndexFunc(w.known.Trials, func(t store.Trial) bool { return t.Generation == to }); i >= 0 {
		b.Trial = &w.known.Trials[i]
	}
	if i := slices.IndexFunc(w.known.Lives, func(l store.Live) bool { return l.Generation == to }); i >= 0 {
		b.Live = &w.known.Lives[i]
	}
	return b
}

// restore has the directory of record say what it did before a change to a generation. Each record is restored, whatever becomes
// of the others.
func (c *Changer) restore(b before, to uint64) error {
	var errs []error
	if now, err := desired.ReadLocal(c.Store.Path()); err != nil || !now.Equal(b.Local) {
		errs = append(errs, desired.WriteLocal(c.Store.Path(), b.Local, c.Hook))
	}
	// What was staged may have been found good meanwhile, and be current.
	current, _ := c.Store.Pointer(store.Current) // a damaged one names nothing
	if now, err := c.Store.Pointer(store.Staged); err == nil && now != b.Staged && (b.Staged == 0 || b.Staged != current) {
		errs = append(errs, c.Store.SetPointer(store.Staged, b.Staged))
	}
	// It names what is current where a promotion stopped half-way, and never else.
	if now, err := c.Store.Pointer(store.Previous); err == nil && now != b.Previous && now == current {
		errs = append(errs, c.Store.SetPointer(store.Previous, b.Previous))
	}
	errs = append(errs, c.restoreLefts(b.Lefts))
	if t, err := c.Store.Trial(to); b.Trial != nil && err == nil && isNone(t) {
		errs = append(errs, c.Store.PutTrial(*b.Trial))
	}
	switch l, err := c.Store.Live(to); {
	case err != nil || l.Generation == 0:
		// The change wrote none.
	case b.Live == nil:
		errs = append(errs, c.Store.EndLive(to))
	case l.From != b.Live.From || !l.At.Equal(b.Live.At) || l.BootID != b.Live.BootID:
		errs = append(errs, c.Store.PutLive(*b.Live))
	}
	return errors.Join(errs...)
}

// isNone reports whether a trial stands for no record.
func isNone(t store.Trial) bool {
	return t.Attempts == 0 && t.Limit == 0 && t.Failed == "" && t.Good.IsZero() && t.Begun.IsZero()
}

func (c *Changer) restoreLefts(was []store.Left) error {
	now, _ := c.Store.Lefts() // damaged ones are in it
	var errs []error
	for _, l := range now {
		if !slices.ContainsFunc(was, func(o store.Left) bool { return o.Generation == l.Generation }) {
			errs = append(errs, c.Store.TakeUp(l.Generation))
		}
	}
	for _, l := range was {
		if !slices.ContainsFunc(now, func(o store.Left) bool {
			return o.Generation == l.Generation && o.For == l.For && o.At.Equal(l.At)
		}) {
			errs = append(errs, c.Store.PutLeft(l))
		}
	}
	return errors.Join(errs...)
}

// takenUp forgets that somebody went back from what is to run now, under whatever number: it is wanted again. A mark that was
// made for what is staged stays: that is still to come.
func (c *Changer) takenUp(modules []store.GenerationModule, staged uint64) error {
	lefts, err := c.Store.Lefts()
	if err != nil && len(lefts) == 0 {
		return err
	}
	var errs []error
	for _, l := range lefts {
		if staged != 0 && l.For == staged {
			continue
		}
		if g, err := c.Store.Generation(l.Generation); err == nil && assemble.Same(g.Modules, modules) {
			errs = append(errs, c.Store.TakeUp(l.Generation))
		}
	}
	return errors.Join(errs...)
}
