package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/powernode/powernode-agent/internal/fsverity"
)

// SyncObject is Sync for one object, whoever committed it: a syncfs waits for whatever else is being written to the filesystem, which
// a new root image needn't. Others that wait for a Sync go on waiting. When it fails, the object is gone if it was one of them.
func (s *Store) SyncObject(d fsverity.Digest) error {
	if err := s.writable(); err != nil {
		return err
	}
	s.syncing.Lock()
	defer s.syncing.Unlock()
	err := s.naming.settle()
	if err == nil {
		err = s.flushObject(d)
	}
	s.linking.Lock()
	at := slices.Index(s.fresh, d)
	if at >= 0 {
		s.fresh = slices.Delete(s.fresh, at, at+1)
	}
	if err == nil {
		defer s.linking.Unlock()
		s.synced.Store(&d)
		return s.unmark()
	}
	s.linking.Unlock()
	s.failures.Add(1)
	err = fmt.Errorf("sync object %s: %w", d, err)
	if at >= 0 {
		err = errors.Join(err, s.removeObjects([]fsverity.Digest{d}))
	}
	return err
}

// flushObject puts an object on the disk, with its name and the directory that the name is in.
func (s *Store) flushObject(d fsverity.Digest) error {
	f, err := s.OpenObject(d)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := s.objects.Step("sync:fsync", f.Sync); err != nil {
		return s.objects.Diagnose(err)
	}
	dir, err := s.objects.Sub(d.ObjectPath()[:2])
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Sync("sync"); err != nil {
		return err
	}
	if err := s.objects.Sync("sync"); err != nil {
		return err
	}
	if s.Verity() == nil {
		return s.EnableVerity(context.Background(), []fsverity.Digest{d})
	}
	return nil
}

// isSynced reports whether SyncObject put an object on the disk, and nothing waits for a Sync.
func (s *Store) isSynced(d fsverity.Digest) bool {
	s.naming.waitAll()
	s.naming.mu.Lock()
	failed := s.naming.err != nil
	s.naming.mu.Unlock()
	s.linking.Lock()
	defer s.linking.Unlock()
	last := s.synced.Load()
	return !failed && last != nil && *last == d && len(s.fresh) == 0
}
