package store

import (
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// Left says that somebody went back from a generation: its modules aren't taken up again until others are wanted, or
// somebody asks for them. As something to boot it is what it was.
type Left struct {
	Generation uint64 `json:"generation"`
	// For is the generation that took its place, At when.
	For uint64    `json:"for"`
	At  time.Time `json:"at"`
}

// Unreadable reports whether it stands for a record that is damaged.
func (l Left) Unreadable() bool { return l.Generation != 0 && l.At.IsZero() }

const leftSuffix = ".left"

// Lefts returns the records of all generations that somebody went back from, by generation. Damaged ones are in it and make
// err: the list is good also when err isn't nil.
func (s *Store) Lefts() ([]Left, error) {
	numbers, err := s.sideNumbers(leftSuffix)
	if err != nil {
		return nil, err
	}
	var lefts []Left
	var errs []error
	for _, n := range numbers {
		var l Left
		err := s.readSide(n, leftSuffix, &l, &l.Generation)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			l = Left{Generation: n}
		}
		lefts, errs = append(lefts, l), append(errs, err)
	}
	return lefts, errors.Join(errs...)
}

// PutLeft records, durably, that somebody went back from a generation.
func (s *Store) PutLeft(l Left) error {
	if err := s.writable(); err != nil {
		return err
	}
	lock, err := s.lockGenerations()
	if err != nil {
		return err
	}
	defer lock.Unlock()
	l.At = l.At.UTC()
	if err := s.putSide(l.Generation, leftSuffix, l); err != nil {
		return fmt.Errorf("record that generation %d was left: %w", l.Generation, err)
	}
	return nil
}

// TakeUp forgets that somebody went back from a generation.
func (s *Store) TakeUp(n uint64) error {
	if err := s.writable(); err != nil {
		return err
	}
	lock, err := s.lockGenerations()
	if err != nil {
		return err
	}
	defer lock.Unlock()
	return s.removeSide(n, leftSuffix)
}
