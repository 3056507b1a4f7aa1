package store

import (
	"context"
	"errors"

	"github.com/powernode/powernode-agent/internal/durable"
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

// Collected counts what Collect removed.
type Collected struct {
	Objects int
}

// Collect removes the objects that no record refers to. It fails with kind Retry while another
// handle is at work, and must not run while this handle has objects that are not part of a module
// or generation yet: they would go too.
func (s *Store) Collect(ctx context.Context) (Collected, error) {
	if err := s.writable(); err != nil {
		return Collected{}, err
	}
	s.linking.Lock()
	defer s.linking.Unlock()
	// A handle's own shared lock would be in the way; the next object takes it again.
	if s.lock != nil {
		if err := s.lock.Unlock(); err != nil {
			return Collected{}, err
		}
		s.lock = nil
	}
	lock, err := s.dir.TryLock(lockFile, durable.Exclusive)
	if err != nil {
		return Collected{}, err
	}
	defer lock.Unlock()
	listed, err := s.Reachable()
	if err != nil {
		return Collected{}, fault.New(fault.KindOf(err), fault.AreaOf(err), fault.HintOf(err), "find out which objects are needed: %w", err)
	}
	var done Collected
	for d, err := range s.Objects() {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return done, err
		}
		if _, ok := listed[d]; ok {
			continue
		}
		if err := s.RemoveObject(d); err != nil {
			return done, err
		}
		done.Objects++
	}
	s.fresh = nil
	return done, nil
}
