package store

import (
	"errors"
	"os"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
)

// Hold keeps every other handle from collecting until this one is closed, as its first object does. It is for work
// that relies on modules that were here before it began, and that no generation refers to yet.
func (s *Store) Hold() error {
	if err := s.writable(); err != nil {
		return err
	}
	return s.shareLocked()
}

// Alone takes the store for this handle alone until release is called: no other handle commits objects, modules or
// generations meanwhile, or moves pointers; those that want to wait for it. It fails with kind Retry while another
// handle is at work. Handles that only read aren't kept away.
func (s *Store) Alone() (release func() error, err error) {
	if err := s.writable(); err != nil {
		return nil, err
	}
	s.linking.Lock()
	defer s.linking.Unlock()
	if s.alone {
		return nil, fault.New(fault.Broken, fault.General, "", "take the store %s: this handle has it alone already", s.dir.Path())
	}
	// A handle's own shared lock would be in the way; the next object takes it again.
	if s.lock != nil {
		if err := s.lock.Unlock(); err != nil {
			return nil, err
		}
		s.lock = nil
	}
	lock, err := s.dir.TryLock(lockFile, durable.Exclusive)
	if err != nil {
		return nil, err
	}
	s.lock, s.alone = lock, true
	return s.releaseAlone, nil
}

func (s *Store) releaseAlone() error {
	s.linking.Lock()
	defer s.linking.Unlock()
	s.alone = false
	lock := s.lock
	s.lock = nil
	if lock == nil {
		return errors.New("the store was closed meanwhile: " + os.ErrClosed.Error())
	}
	return lock.Unlock()
}
