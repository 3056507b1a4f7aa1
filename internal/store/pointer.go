package store

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"github.com/powernode/powernode-agent/internal/fault"
)

// PointerName is the name of a pointer to a generation.
type PointerName string

// The pointers.
const (
	Current  PointerName = "current"  // runs, and is booted unless one is staged
	Previous PointerName = "previous" // ran before, and is the way back
	Staged   PointerName = "staged"   // is to be tried at the next boot
)

const pointerLimit = 32

// Pointer returns the number of the generation that a pointer names, or 0 if it names none.
func (s *Store) Pointer(name PointerName) (uint64, error) {
	if err := checkPointer(name); err != nil {
		return 0, err
	}
	data, err := s.generations.ReadFile(string(name), pointerLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	var n uint64
	if err == nil {
		n, err = parsePointer(data)
	}
	return n, damaged(s.generations.Path()+"/"+string(name), err)
}

// SetPointer makes a pointer name generation n, which must be here and readable, or none where n
// is 0. Readers see the old value or the new one, also after a crash.
func (s *Store) SetPointer(name PointerName, n uint64) error {
	if err := errors.Join(s.writable(), checkPointer(name)); err != nil {
		return err
	}
	lock, err := s.lockGenerations()
	if err != nil {
		return err
	}
	defer lock.Unlock()
	return s.setPointer(name, n)
}

func (s *Store) setPointer(name PointerName, n uint64) error {
	if n == 0 {
		err := s.generations.Remove(string(name), "pointer-"+string(name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if _, err := s.Generation(n); err != nil {
		return fmt.Errorf("make generation %d %s: %w", n, name, err)
	}
	return s.generations.WriteFile(string(name), formatPointer(n), recordPerm, "pointer-"+string(name))
}

// Promote makes generation n current and what was current previous, and takes n off staged. A
// crash on the way leaves current as it was, or as it is to be. A pointer that is damaged, or that
// names a generation that is, or one that only went live, is no way back: previous stays as it is then.
func (s *Store) Promote(n uint64) error {
	if err := s.writable(); err != nil {
		return err
	}
	lock, err := s.lockGenerations()
	if err != nil {
		return err
	}
	defer lock.Unlock()
	current, err := s.wayBack()
	if err != nil {
		return err
	}
	// Before current, so that the way back is never lost.
	if current != 0 && current != n {
		if err := s.setPointer(Previous, current); err != nil {
			return err
		}
	}
	// One that is current is left as it is: that needs no room on a disk that may be full.
	if current != n {
		if err := s.setPointer(Current, n); err != nil {
			return err
		}
	}
	// A damaged one names nothing, and is kept for a person to see.
	staged, err := s.Pointer(Staged)
	if err != nil && isDamage(err) {
		return nil
	}
	if err != nil || staged != n {
		return err
	}
	return s.setPointer(Staged, 0)
}

// wayBack returns the generation that is current, or 0 where that can't be booted again, or where no boot of it was
// ever found good.
func (s *Store) wayBack() (uint64, error) {
	current, err := s.Pointer(Current)
	if err == nil && current != 0 {
		_, err = s.Generation(current)
	}
	if err == nil && current != 0 {
		// What is damaged of these says nothing of a generation that is current.
		t, _ := s.Trial(current)
		if l, damage := s.Live(current); damage == nil && l.Unproven(t) {
			return 0, nil
		}
	}
	if err != nil && (isDamage(err) || errors.Is(err, fs.ErrNotExist)) {
		return 0, nil
	}
	return current, err
}

func checkPointer(name PointerName) error {
	switch name {
	case Current, Previous, Staged:
		return nil
	}
	return fault.New(fault.Refuse, fault.Input, "name current, previous or staged", "no pointer is called %.40q", string(name))
}

func formatPointer(n uint64) []byte { return strconv.AppendUint(nil, n, 10) }

// parsePointer reads a number from 1 in decimal, without a sign or leading zeros. A line end may
// follow, for those who edit by hand.
func parsePointer(data []byte) (uint64, error) {
	if l := len(data); l > 0 && data[l-1] == '\n' {
		data = data[:l-1]
	}
	n, err := strconv.ParseUint(string(data), 10, 64)
	if err != nil || n == 0 || string(formatPointer(n)) != string(data) {
		return 0, fmt.Errorf("%.40q is no generation number", data)
	}
	return n, nil
}
