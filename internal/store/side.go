package store

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// A side record is a fact about a generation that came after it, in a file of its own: <n>.trial,
// <n>.pin, <n>.live. New facts come as new kinds of them and not as new fields: records are read
// strictly, so that an agent from before would take one with a field more for damaged, while it leaves
// files of kinds that it doesn't know alone.

// sideKinds are all that there are.
var sideKinds = [...]string{trialSuffix, pinSuffix, liveSuffix, leftSuffix}

func sideFile(n uint64, suffix string) string { return strconv.FormatUint(n, 10) + suffix }

func parseSideFile(name, suffix string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil && n > 0 && sideFile(n, suffix) == name
}

// sideNumbers returns the numbers of the generations that have a side record of that kind, in order.
func (s *Store) sideNumbers(suffix string) ([]uint64, error) {
	names, err := s.generations.Names()
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, name := range names {
		if n, ok := parseSideFile(name, suffix); ok {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// readSide reads a side record into v and checks that it is of generation n, as of says. One that isn't there
// gives an error that wraps fs.ErrNotExist.
func (s *Store) readSide(n uint64, suffix string, v any, of *uint64) error {
	err := readRecord(s.generations, sideFile(n, suffix), v)
	if err == nil && *of != n {
		err = damaged(s.generations.Path()+"/"+sideFile(n, suffix), fmt.Errorf("it is of generation %d", *of))
	}
	return err
}

// putSide writes a side record of a generation that is here. The caller holds the generations' lock.
func (s *Store) putSide(n uint64, suffix string, v any) error {
	if _, err := s.Generation(n); err != nil {
		return err
	}
	data, err := sealRecord(v)
	if err != nil {
		return err
	}
	return s.generations.WriteFile(sideFile(n, suffix), data, recordPerm, suffix[1:])
}

// removeSide removes a side record, if there is one. The caller holds the generations' lock.
func (s *Store) removeSide(n uint64, suffix string) error {
	err := s.generations.Remove(sideFile(n, suffix), suffix[1:])
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
