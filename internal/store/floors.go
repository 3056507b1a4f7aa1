package store

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/module"
)

// Floor is the highest version of a module that was ever current on this node.
type Floor struct {
	Version string `json:"version"`
	// Generation is the first that had it, and Since when that became current.
	Generation uint64    `json:"generation"`
	Since      time.Time `json:"since"`
}

// Floors are the floors of all modules, by name.
type Floors map[string]Floor

const floorsFile = "floors.json"

// floorsRecord is how floors.json looks inside its envelope.
type floorsRecord struct {
	Floors Floors `json:"floors"`
}

// Floors returns the highest version of each module that was ever current here: what floors.json says, and what the
// generations say that are current, were before, went live or were found good. Where the file can't be
// read there is no telling what it said: the error is of kind Broken, and nobody should go on as if there were
// no floors.
func (s *Store) Floors() (Floors, error) {
	_, all, err := s.floors()
	return all, err
}

// floors returns what the file says, and that with what the generations say.
func (s *Store) floors() (written, all Floors, err error) {
	var record floorsRecord
	err = readRecord(s.dir, floorsFile, &record)
	if err == nil {
		err = damaged(s.dir.Path()+"/"+floorsFile, record.Floors.check())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fault.New(fault.Broken, fault.Policy, "remove it: it is begun anew from the generations that are here, so look first that nothing assigns an old version",
			"read the lowest versions that may run: %w", err)
	}
	all = maps.Clone(record.Floors)
	if all == nil {
		all = make(Floors)
	}
	err = s.everCurrent(func(g Generation, since time.Time) { all.raise(g, since) })
	return record.Floors, all, err
}

func (f Floors) check() error {
	for name, floor := range f {
		if err := errors.Join(module.CheckName(name), module.CheckVersion(floor.Version)); err != nil {
			return err
		}
	}
	return nil
}

// raise raises the floors to a generation's versions, and reports whether it had to.
func (f Floors) raise(g Generation, since time.Time) bool {
	raised := false
	for _, m := range g.Modules {
		floor, ok := f[m.Name]
		if module.CheckName(m.Name) != nil || module.CheckVersion(m.Version) != nil || ok && module.CompareVersions(m.Version, floor.Version) <= 0 {
			continue
		}
		f[m.Name], raised = Floor{Version: m.Version, Generation: g.Number, Since: since.UTC()}, true
	}
	return raised
}

// everCurrent yields the generations that are or were current, as far as their records are readable, oldest first.
func (s *Store) everCurrent(yield func(g Generation, since time.Time)) error {
	was := make(map[uint64]bool)
	for _, name := range []PointerName{Current, Previous} {
		n, err := s.Pointer(name)
		if err != nil && !isDamage(err) {
			return err
		}
		was[n] = err == nil
	}
	generations, err := s.Generations()
	if err != nil && !isDamage(err) {
		return err
	}
	left := make(map[uint64]bool)
	lefts, _ := s.Lefts() // what is damaged of these says nothing
	for _, l := range lefts {
		left[l.Generation] = true
	}
	for _, g := range generations {
		t, _ := s.Trial(g.Number) // nor of these
		l, _ := s.Live(g.Number)
		switch {
		case !t.Good.IsZero():
			yield(g, t.Good)
		case !l.At.IsZero() && t.Failed == "" && !left[g.Number]: // one that was taken back is no reason to refuse what was before
			yield(g, l.At)
		case was[g.Number]:
			yield(g, g.Created)
		}
	}
	return nil
}

// RaiseFloors writes down the floors with those of generation g, which has become current now, durably; nothing where
// they are so high already. A g of number 0 stands for none: what the generations that are here say is
// written down then, as before they go. It never lowers a floor.
func (s *Store) RaiseFloors(g Generation, now time.Time) error {
	if err := s.writable(); err != nil {
		return err
	}
	lock, err := s.lockGenerations()
	if err != nil {
		return err
	}
	defer lock.Unlock()
	written, all, err := s.floors()
	if err != nil {
		return err
	}
	if g.Number != 0 {
		all.raise(g, now)
	}
	if maps.Equal(written, all) {
		return nil
	}
	data, err := sealRecord(floorsRecord{Floors: all})
	if err != nil {
		return fmt.Errorf("write the lowest versions that may run: %w", err)
	}
	return s.dir.WriteFile(floorsFile, data, recordPerm, "floors")
}
