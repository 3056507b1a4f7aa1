package store

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

// Reachable returns every object that a record refers to: what modules list, their images, and
// the root images of generations. It fails if a record can't be read, since what that one refers
// to would be missing.
func (s *Store) Reachable() (map[fsverity.Digest]struct{}, error) {
	listed, err := s.reachable()
	if err != nil {
		return nil, err
	}
	return listed, nil
}

// reachable returns what the readable records refer to, also when others are damaged.
func (s *Store) reachable() (map[fsverity.Digest]struct{}, error) {
	listed := make(map[fsverity.Digest]struct{})
	modules, err := s.ListModules()
	errs := []error{err}
	for _, m := range modules {
		listed[m.Seal] = struct{}{}
		objects, err := s.moduleObjects(m.ManifestDigest)
		errs = append(errs, err)
		for _, d := range objects {
			listed[d] = struct{}{}
		}
	}
	generations, err := s.Generations()
	errs = append(errs, err)
	for _, g := range generations {
		listed[g.RootDigest] = struct{}{}
	}
	return listed, errors.Join(errs...)
}

func (s *Store) moduleObjects(manifestDigest string) ([]fsverity.Digest, error) {
	digits, err := parseSHA256(manifestDigest)
	if err != nil {
		return nil, err
	}
	dir, record, err := s.moduleRecord(digits)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return record.objects(dir)
}

// ModuleObjects returns the objects that a module needs, its image among them.
func (s *Store) ModuleObjects(m Module) ([]fsverity.Digest, error) {
	objects, err := s.moduleObjects(m.ManifestDigest)
	if err != nil {
		return nil, err
	}
	return append(objects, m.Seal), nil
}

// Collected counts what was removed, or would be.
type Collected struct {
	Objects int
	// Bytes is what they take on the disk.
	Bytes int64
}

// Collect removes the objects that no record refers to. It fails with kind Retry while another
// handle is at work, and must not run while this handle has objects that are not part of a module
// or generation yet: they would go too.
func (s *Store) Collect(ctx context.Context) (done Collected, err error) {
	release, err := s.Alone()
	if err != nil {
		return Collected{}, err
	}
	defer func() { err = errors.Join(err, release()) }()
	listed, err := s.Reachable()
	if err != nil {
		return Collected{}, fault.New(fault.KindOf(err), fault.AreaOf(err), fault.HintOf(err), "find out which objects are needed: %w", err)
	}
	return s.RemoveUnlisted(ctx, listed)
}

// Unlisted counts the objects that listed doesn't hold. A store that others work in may change meanwhile.
func (s *Store) Unlisted(ctx context.Context, listed map[fsverity.Digest]struct{}) (Collected, error) {
	return s.eachUnlisted(ctx, listed, func(fsverity.Digest) error { return nil })
}

// RemoveUnlisted removes the objects that listed doesn't hold, for good. The handle must have the store alone.
func (s *Store) RemoveUnlisted(ctx context.Context, listed map[fsverity.Digest]struct{}) (Collected, error) {
	s.linking.Lock()
	defer s.linking.Unlock()
	if !s.alone {
		return Collected{}, fault.New(fault.Broken, fault.General, "", "remove objects of %s: the handle doesn't have the store alone", s.dir.Path())
	}
	s.fresh = nil
	done, err := s.eachUnlisted(ctx, listed, s.RemoveObject)
	if err != nil || done.Objects == 0 {
		return done, err
	}
	if err = s.objects.SyncFS("collect"); err != nil {
		s.failures.Add(1) // the kernel tells of it once, and it may be of somebody else's bytes
	}
	return done, err
}

// eachUnlisted does something to each object that listed doesn't hold, and counts those that it was done to.
func (s *Store) eachUnlisted(ctx context.Context, listed map[fsverity.Digest]struct{}, do func(fsverity.Digest) error) (Collected, error) {
	var unlisted []fsverity.Digest
	for d, err := range s.Objects() {
		if err != nil {
			return Collected{}, err
		}
		if _, ok := listed[d]; !ok {
			unlisted = append(unlisted, d)
		}
	}
	// An unlink mostly waits for the disk; many at a time take a tenth of the time.
	workers := waiters()
	if !s.naming.background {
		workers = 1 // in an order that a test can rely on
	}
	var objects, bytes atomic.Int64
	err := s.forEach(ctx, workers, unlisted, func(_ int, d fsverity.Digest) error {
		size := allocated(s.objects.File(), d.ObjectPath())
		if err := do(d); err != nil {
			return err
		}
		objects.Add(1)
		bytes.Add(size)
		return nil
	})
	return Collected{Objects: int(objects.Load()), Bytes: bytes.Load()}, err
}
