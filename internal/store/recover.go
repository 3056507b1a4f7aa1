package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

// Recovery says what Open had to repair.
type Recovery struct {
	Checked int // objects that no record lists, whose bytes were checked
	Removed int // those of them that were damaged, and removed
	// Format says why the store's format couldn't be read; it was written anew, unless the store is only read.
	Format string
}

// Recovered returns what Open had to repair; nothing after an orderly end.
func (s *Store) Recovered() Recovery { return s.recovery }

// recover applies the third rule of the package's crash safety, if no other handle is at work. If
// one is, it came first and recovered before it began.
func (s *Store) recover(ctx context.Context) error {
	lock, err := s.dir.TryLock(lockFile, durable.Exclusive)
	if _, busy := errors.AsType[*durable.LockedError](err); busy {
		// Wait for a recovery that is under way; handles at work share the lock.
		ctx, cancel := context.WithTimeout(ctx, lockPatience)
		defer cancel()
		lock, err = s.dir.Lock(ctx, lockFile, durable.Shared)
		if err == nil {
			err = lock.Unlock()
		}
		return err
	}
	if err != nil {
		return err
	}
	defer lock.Unlock()
	markers, err := s.unsynced.Names()
	if err != nil {
		return err
	}
	if len(markers) > 0 {
		if err := s.recheck(ctx); err != nil {
			return fmt.Errorf("check the objects after a crash: %w", err)
		}
	}
	for _, d := range []*durable.Dir{s.objects, s.modules, s.generations} {
		if err := d.Sweep(); err != nil {
			return err
		}
	}
	for _, marker := range markers {
		if err := s.unsynced.Remove(marker, "unsynced"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// recheck removes the objects that no readable record lists and whose bytes are damaged.
func (s *Store) recheck(ctx context.Context) error {
	// After a kill without a power cut the bytes are good in memory but may not be on the disk.
	if err := s.objects.SyncFS("recover"); err != nil {
		return err
	}
	// A damaged record hides what it lists: that is then checked like the rest.
	listed, _ := s.reachable()
	var suspects []fsverity.Digest
	for d, err := range s.Objects() {
		if err != nil {
			return err
		}
		if _, ok := listed[d]; !ok {
			suspects = append(suspects, d)
		}
	}
	damaged := make(chan fsverity.Digest, len(suspects))
	err := s.forEach(ctx, runtime.GOMAXPROCS(0), suspects, func(_ int, d fsverity.Digest) error {
		if s.VerifyObject(d) != nil {
			damaged <- d
		}
		return nil
	})
	close(damaged)
	if err != nil {
		return err
	}
	s.recovery.Checked, s.recovery.Removed = len(suspects), len(damaged)
	for d := range damaged {
		if err := s.RemoveObject(d); err != nil {
			return err
		}
	}
	if s.recovery.Removed == 0 {
		return nil
	}
	return s.objects.SyncFS("recover")
}
