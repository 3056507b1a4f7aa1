package change

import (
	"errors"
	"slices"

	"github.com/powernode/powernode-agent/internal/change/desired"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/trial"
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

// before returns what there is before the change says anything else, with the records of the generation that it leads to. It is read
// anew: others write records without the lock for changing, as the health gate does, and what they say isn't taken back.
func (w *work) before(to uint64) before {
	now, err := trial.Read(w.c.Store)
	if err != nil {
		now = w.known // what is damaged there was so before
	}
	b := before{Local: w.local, Staged: now.Staged, Previous: now.Previous, Lefts: now.Lefts}
	if i := slices.IndexFunc(now.Trials, func(t store.Trial) bool { return t.Generation == to }); i >= 0 {
		b.Trial = &now.Trials[i]
	}
	if i := slices.IndexFunc(now.Lives, func(l store.Live) bool { return l.Generation == to }); i >= 0 {
		b.Live = &now.Lives[i]
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

// takenUp forgets that somebody went back from what is to run now, under whatever number, and whatever is attached and detached
// here: it is wanted again. A mark that was made for what is staged stays: that is still to come.
func (c *Changer) takenUp(modules []store.GenerationModule, staged uint64) error {
	if lefts, err := c.Store.Lefts(); len(lefts) == 0 {
		return err
	}
	in, _ := trial.Read(c.Store) // what is damaged of the rest says nothing
	local, err := desired.ReadLocal(c.Store.Path())
	if err == nil {
		in.Detached = local.Detached
	}
	var errs []error
	for _, l := range in.Lefts {
		if (staged == 0 || l.For != staged) && in.Means(l, modules) {
			errs = append(errs, c.Store.TakeUp(l.Generation))
		}
	}
	return errors.Join(errs...)
}

// sweep removes marks of a going back that came to nothing by a power cut: they would count once what the generation was left for
// is current, though nobody goes back any more.
func (w *work) sweep() {
	for _, l := range w.known.Lefts {
		tried := slices.ContainsFunc(w.known.Trials, func(t store.Trial) bool { return t.Generation == l.For && t.Attempts > 0 })
		if w.known.Stands(l) || tried || w.request.DryRun {
			continue
		}
		if err := w.c.Store.TakeUp(l.Generation); err != nil {
			w.remark(fault.OneLine(err.Error()))
			continue
		}
		w.known.Lefts = slices.DeleteFunc(slices.Clone(w.known.Lefts), func(o store.Left) bool { return o.Generation == l.Generation })
	}
}

// settle has the records say what follows from a change that counts. What they said before was kept for as long as it didn't.
func (c *Changer) settle(j journal) error {
	var errs []error
	if j.Anew {
		errs = append(errs, c.Store.EndTrial(j.To))
	}
	staged, err := c.Store.Pointer(store.Staged)
	if !j.Points && err == nil && staged != 0 && staged == j.Before.Staged {
		errs = append(errs, c.Store.SetPointer(store.Staged, 0)) // it is of an older wish
	}
	if j.Bad != "" {
		errs = append(errs, c.failed(j.From, j.Bad))
	}
	return errors.Join(errs...)
}
