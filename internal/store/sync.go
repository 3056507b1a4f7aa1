package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

// lockPatience is how long a writer waits for another handle's recovery or collection.
const lockPatience = 2 * time.Minute

// begin makes sure that the handle is known to be at work, before it links its first object. The
// caller holds s.linking alone.
func (s *Store) begin() error {
	if err := s.share(); err != nil || s.marker != "" {
		return err
	}
	marker := rand.Text()
	text := fmt.Sprintf("process %d since %s\n", os.Getpid(), time.Now().UTC().Format(time.RFC3339))
	if err := s.unsynced.WriteNew(marker, []byte(text), recordPerm, "unsynced"); err != nil {
		return err
	}
	s.marker = marker
	return nil
}

// share takes the store's lock so that no other handle collects. The caller holds s.linking alone.
func (s *Store) share() error {
	if s.lock != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), lockPatience)
	defer cancel()
	lock, err := s.dir.Lock(ctx, lockFile, durable.Shared)
	s.lock = lock
	return err
}

// shareLocked is share for a caller that doesn't hold s.linking.
func (s *Store) shareLocked() error {
	s.linking.Lock()
	defer s.linking.Unlock()
	return s.share()
}

// Sync puts every object committed so far on the disk, by one syncfs, and enables fs-verity on
// the new ones where the kernel and the filesystem have it. When it fails, the objects committed
// since the last good Sync are gone.
func (s *Store) Sync() error {
	if err := s.writable(); err != nil {
		return err
	}
	s.syncing.Lock()
	defer s.syncing.Unlock()
	err := s.naming.settle()
	s.linking.Lock()
	pending := s.fresh
	s.fresh = nil
	s.linking.Unlock()

	if err == nil {
		err = s.flush(pending)
	}
	if err != nil {
		s.failures.Add(1)
		return errors.Join(fmt.Errorf("sync store: %w", err), s.removeObjects(pending))
	}

	s.linking.Lock()
	defer s.linking.Unlock()
	return s.unmark()
}

// unmark removes the handle's marker where none of its objects waits for a Sync. The caller holds s.linking alone.
func (s *Store) unmark() error {
	if s.marker == "" || len(s.fresh) > 0 {
		return nil
	}
	// The marker's removal needs no sync: a marker too many costs a check, no more.
	err := s.unsynced.Step("unsynced:remove", func() error { return s.unsynced.Root().Remove(s.marker) })
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		s.marker = ""
		return nil
	}
	return err
}

func (s *Store) flush(pending []fsverity.Digest) error {
	if err := s.objects.SyncFS("sync"); err != nil {
		return err
	}
	if len(pending) > 0 && s.Verity() == nil {
		return s.EnableVerity(context.Background(), pending)
	}
	return nil
}

// syncSince is Sync for work that began when failures stood at before. The kernel reports an error
// of the disk once, perhaps to another goroutine's Sync, and what it hit may be this one's.
func (s *Store) syncSince(before uint64) error {
	if err := s.Sync(); err != nil {
		return err
	}
	if s.failures.Load() != before {
		return fault.New(fault.Retry, fault.Mount, "try again", "the disk of %s reported an error meanwhile", s.dir.Path())
	}
	return nil
}

// removeObjects removes objects that no record lists.
func (s *Store) removeObjects(digests []fsverity.Digest) error {
	var errs []error
	for _, d := range digests {
		if err := s.RemoveObject(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// RemoveObject removes an object, as one that VerifyObject found damaged: the next commit of the
// same bytes writes it anew. It doesn't look whether a record lists it.
func (s *Store) RemoveObject(d fsverity.Digest) error {
	if err := s.writable(); err != nil {
		return err
	}
	s.naming.wait(d)
	return s.removeObject(d)
}

func (s *Store) removeObject(d fsverity.Digest) error {
	if last := s.synced.Load(); last != nil && *last == d {
		s.synced.CompareAndSwap(last, nil)
	}
	return s.objects.Step("object:remove", func() error {
		return s.objectError("remove", d, unix.Unlinkat(int(s.objects.File().Fd()), d.ObjectPath(), 0))
	})
}
