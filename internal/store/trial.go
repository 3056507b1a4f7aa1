package store

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Trial is what became of a generation that was booted without being known to be good. Its record
// is a file of its own beside the generation's, which never changes.
type Trial struct {
	Generation uint64 `json:"generation"`
	// Attempts is how many boots began with it, written before the boot uses the generation. It
	// never becomes less. Limit is how many may, 0 while it isn't being tried.
	Attempts int `json:"attempts"`
	Limit    int `json:"limit"`
	// Begun is when the last of them began, and BootID the kernel's ID of that boot.
	Begun  time.Time `json:"begun,omitzero"`
	BootID string    `json:"boot_id,omitempty"`
	// Asked says that the operator named this generation for the last attempts.
	Asked bool `json:"asked,omitempty"`
	// Ended is why the gate ended the last attempt, where others are left. Forgiven is how many boots of the
	// attempts didn't count because somebody restarted the machine in order: Limit is higher by as many.
	Ended    string `json:"ended,omitempty"`
	Forgiven int    `json:"forgiven,omitempty"`
	// Failed is the reason why it isn't tried any more, "" while it may be; FailedAt is when.
	Failed   string    `json:"failed,omitempty"`
	FailedAt time.Time `json:"failed_at,omitzero"`
	// Good is when it passed, and FailedUnits what didn't work even so: what a later generation
	// isn't blamed for.
	Good        time.Time `json:"good,omitzero"`
	FailedUnits []string  `json:"failed_units,omitempty"`
}

// Exhausted reports whether the generation is to be tried no more.
func (t Trial) Exhausted() bool { return t.Failed != "" || t.Limit > 0 && t.Attempts >= t.Limit }

// damagedTrial stands for a record that can't be read: the attempts that it counted may have been
// the last ones.
const damagedTrial = "the record of its trial can't be read"

func (t Trial) check(n uint64) error {
	switch {
	case t.Generation != n:
		return fmt.Errorf("it is the trial of generation %d", t.Generation)
	case t.Attempts < 0 || t.Limit < 0 || t.Forgiven < 0:
		return fmt.Errorf("it counts %d of %d attempts", t.Attempts, t.Limit)
	}
	return nil
}

// Unreadable reports whether the trial stands for a record that is damaged: whether the generation was good isn't known.
func (t Trial) Unreadable() bool { return t.Failed == damagedTrial }

const trialSuffix = ".trial"

func trialFile(n uint64) string { return sideFile(n, trialSuffix) }

// Trial returns the trial of a generation; one that never had any gives only its number. A record
// that is damaged comes as an exhausted trial, with an error of kind Broken.
func (s *Store) Trial(n uint64) (Trial, error) {
	var t Trial
	err := readRecord(s.generations, trialFile(n), &t)
	if errors.Is(err, fs.ErrNotExist) {
		return Trial{Generation: n}, nil
	}
	if err == nil {
		err = damaged(s.generations.Path()+"/"+trialFile(n), t.check(n))
	}
	if err != nil {
		return Trial{Generation: n, Failed: damagedTrial}, err
	}
	return t, nil
}

// Trials returns the trials of all generations that had one, by generation. Damaged ones are in
// it, as exhausted, and make err: the list is good also when err isn't nil.
func (s *Store) Trials() ([]Trial, error) {
	numbers, err := s.sideNumbers(trialSuffix)
	if err != nil {
		return nil, err
	}
	var trials []Trial
	var errs []error
	for _, n := range numbers {
		t, err := s.Trial(n)
		trials, errs = append(trials, t), append(errs, err)
	}
	return trials, errors.Join(errs...)
}

// PutTrial records a trial, durably, in place of what was recorded of that generation. It refuses
// to take attempts back, so that no mistake makes a machine boot a bad generation for ever.
func (s *Store) PutTrial(t Trial) error {
	if err := s.writable(); err != nil {
		return err
	}
	if err := t.check(t.Generation); err != nil || t.Generation == 0 {
		return fault.New(fault.Refuse, fault.Input, "", "record a trial of generation %d: %w", t.Generation, errors.Join(err, errNoGeneration(t.Generation)))
	}
	lock, err := s.lockGenerations()
	if err != nil {
		return err
	}
	defer lock.Unlock()
	return s.putTrial(t)
}

func errNoGeneration(n uint64) error {
	if n == 0 {
		return errors.New("the first generation is 1")
	}
	return nil
}

func (s *Store) putTrial(t Trial) error {
	if _, err := s.Generation(t.Generation); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("record a trial: %w", err)
	}
	before, err := s.Trial(t.Generation)
	if err != nil && !isDamage(err) {
		return err
	}
	if err == nil && t.Attempts < before.Attempts {
		return fault.New(fault.Refuse, fault.General, "", "record attempt %d of generation %d: %d have been counted", t.Attempts, t.Generation, before.Attempts)
	}
	data, err := sealRecord(t)
	if err != nil {
		return err
	}
	return s.generations.WriteFile(trialFile(t.Generation), data, recordPerm, "trial")
}

// EndTrial forgets what became of a generation: one that failed may be tried anew. One without a
// trial stays so.
func (s *Store) EndTrial(n uint64) error {
	if err := s.writable(); err != nil {
		return err
	}
	lock, err := s.lockGenerations()
	if err != nil {
		return err
	}
	defer lock.Unlock()
	return s.endTrial(n)
}

func (s *Store) endTrial(n uint64) error { return s.removeSide(n, trialSuffix) }

// Stage has the next boot try generation n, with all its attempts, whatever became of it before.
func (s *Store) Stage(n uint64) error {
	if err := s.EndTrial(n); err != nil {
		return err
	}
	return s.SetPointer(Staged, n)
}

// Pass makes generation n current, as Promote does, and records that it is good since now, with
// the units that had failed even so. A crash on the way leaves it untested or current.
func (s *Store) Pass(n uint64, now time.Time, failedUnits []string) error {
	if err := s.Promote(n); err != nil {
		return err
	}
	t, err := s.Trial(n)
	switch {
	case err != nil && !isDamage(err):
		return err
	case err != nil:
		t = Trial{Generation: n}
	case !t.Good.IsZero() && t.Limit == 0 && slices.Equal(t.FailedUnits, failedUnits):
		return nil // as it stands: that needs no room on a disk that may be full
	}
	t.Good, t.FailedUnits, t.Failed, t.FailedAt, t.Limit = now.UTC(), failedUnits, "", time.Time{}, 0
	t.Ended, t.Forgiven = "", 0
	return s.PutTrial(t)
}
