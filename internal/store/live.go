package store

import (
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// Live says that a generation took the place of another in a running system, without a boot. That it works
// there says nothing of whether it boots.
type Live struct {
	Generation uint64 `json:"generation"`
	// From is the generation that ran before, At when it went, and BootID the kernel's ID of that boot.
	From   uint64    `json:"from"`
	At     time.Time `json:"at"`
	BootID string    `json:"boot_id,omitempty"`
}

const liveSuffix = ".live"

// Unproven reports whether the generation went live and no boot with it was found good, by its trial.
func (l Live) Unproven(t Trial) bool { return l.Generation != 0 && t.Good.IsZero() }

// Unreadable reports whether it stands for a record that is damaged.
func (l Live) Unreadable() bool { return l.Generation != 0 && l.At.IsZero() }

// Live returns what is recorded of a generation's going live, or a Live of generation 0 where it didn't. A
// damaged record counts as one; the error, of kind Broken, says so.
func (s *Store) Live(n uint64) (Live, error) {
	var l Live
	err := s.readSide(n, liveSuffix, &l, &l.Generation)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Live{}, nil
	case err != nil:
		return Live{Generation: n}, err
	}
	return l, nil
}

// Lives returns the records of all generations that went live, by generation. Damaged ones are in it and make err:
// the list is good also when err isn't nil.
func (s *Store) Lives() ([]Live, error) {
	numbers, err := s.sideNumbers(liveSuffix)
	if err != nil {
		return nil, err
	}
	var lives []Live
	var errs []error
	for _, n := range numbers {
		l, err := s.Live(n)
		if errs = append(errs, err); l.Generation != 0 {
			lives = append(lives, l)
		}
	}
	return lives, errors.Join(errs...)
}

// PutLive records that a generation goes live, durably, in place of what was recorded of it before. It comes before the
// pointer: a generation that became current without a boot and without this record would count as one that
// boots.
func (s *Store) PutLive(l Live) error {
	if err := s.writable(); err != nil {
		return err
	}
	lock, err := s.lockGenerations()
	if err != nil {
		return err
	}
	defer lock.Unlock()
	l.At = l.At.UTC()
	if err := s.putSide(l.Generation, liveSuffix, l); err != nil {
		return fmt.Errorf("record that generation %d goes live: %w", l.Generation, err)
	}
	return nil
}

// EndLive forgets that a generation went live: of one whose change came to nothing.
func (s *Store) EndLive(n uint64) error {
	if err := s.writable(); err != nil {
		return err
	}
	lock, err := s.lockGenerations()
	if err != nil {
		return err
	}
	defer lock.Unlock()
	return s.removeSide(n, liveSuffix)
}
