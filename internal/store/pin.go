package store

import (
	"errors"
	"fmt"
	"io/fs"
	"time"
	"unicode/utf8"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Pin says that a person wants a generation kept, whatever comes after it.
type Pin struct {
	Generation uint64    `json:"generation"`
	Since      time.Time `json:"since"`
	// Note is the person's reason, one line of at most NoteMax bytes.
	Note string `json:"note,omitempty"`
}

// NoteMax is the longest note of a pin in bytes.
const NoteMax = 200

const pinSuffix = ".pin"

// Pin returns the pin of a generation, or one of generation 0 where it has none. One that is damaged pins all the
// same; the error, of kind Broken, says so.
func (s *Store) Pin(n uint64) (Pin, error) {
	var p Pin
	err := s.readSide(n, pinSuffix, &p, &p.Generation)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Pin{}, nil
	case err != nil:
		return Pin{Generation: n, Note: "the record of this pin can't be read"}, err
	}
	return p, nil
}

// Pins returns all pins, by generation. Damaged ones are in it and make err: the list is good also when
// err isn't nil.
func (s *Store) Pins() ([]Pin, error) {
	numbers, err := s.sideNumbers(pinSuffix)
	if err != nil {
		return nil, err
	}
	var pins []Pin
	var errs []error
	for _, n := range numbers {
		p, err := s.Pin(n)
		if errs = append(errs, err); p.Generation != 0 {
			pins = append(pins, p)
		}
	}
	return pins, errors.Join(errs...)
}

// PutPin pins p.Generation, durably, in place of a pin that it had. RemoveGeneration refuses it from then on.
func (s *Store) PutPin(p Pin) error {
	if err := s.writable(); err != nil {
		return err
	}
	if len(p.Note) > NoteMax || !utf8.ValidString(p.Note) || fault.OneLine(p.Note) != p.Note {
		return fault.New(fault.Refuse, fault.Input, fmt.Sprintf("use one line of at most %d bytes", NoteMax), "pin generation %d: the note %.80q", p.Generation, p.Note)
	}
	lock, err := s.lockGenerations()
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if err := s.putSide(p.Generation, pinSuffix, p); err != nil {
		return fmt.Errorf("pin generation %d: %w", p.Generation, err)
	}
	return nil
}

// RemovePin takes the pin of a generation away, a damaged one too. One that isn't pinned gives an error that
// wraps fs.ErrNotExist.
func (s *Store) RemovePin(n uint64) error {
	if err := s.writable(); err != nil {
		return err
	}
	lock, err := s.lockGenerations()
	if err != nil {
		return err
	}
	defer lock.Unlock()
	err = s.generations.Remove(sideFile(n, pinSuffix), pinSuffix[1:])
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Refuse, fault.Input, "powernode-agent generations lists the pins", "generation %d isn't pinned: %w", n, err)
	}
	return err
}
