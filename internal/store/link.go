package store

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

// keep reports whether the object is here with the right size. One of another size is what a
// power cut left of it, or damage; it is removed.
func (s *Store) keep(d fsverity.Digest, size uint64) (bool, error) {
	var st unix.Stat_t
	err := unix.Fstatat(int(s.objects.File().Fd()), d.ObjectPath(), &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return false, nil
	case err != nil:
		return false, s.objectError("look for", d, err)
	case st.Mode&unix.S_IFMT == unix.S_IFREG && uint64(st.Size) == size:
		return true, nil
	}
	return false, s.removeObject(d)
}

// link names an object's file and reports whether it did: another writer may have been first.
func (s *Store) link(f *os.File, d fsverity.Digest) (bool, error) {
	s.linking.RLock()
	for s.marker == "" || s.lock == nil {
		s.linking.RUnlock()
		s.linking.Lock()
		err := s.begin()
		s.linking.Unlock()
		if err != nil {
			return false, err
		}
		s.linking.RLock()
	}
	err := s.linkObject(f, d)
	if err == nil {
		s.freshMu.Lock()
		s.fresh = append(s.fresh, d)
		s.freshMu.Unlock()
	}
	s.linking.RUnlock()
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	return err == nil, s.objects.Diagnose(err)
}

func (s *Store) linkObject(f *os.File, d fsverity.Digest) error {
	path := d.ObjectPath()
	link := func() error {
		return pathError("create", s.objects, path, durable.LinkUnnamed(f, s.objects.File(), path))
	}
	err := s.objects.Step("object:link", link)
	if errors.Is(err, fs.ErrNotExist) {
		if err = s.makeObjectDir(path[:2]); err == nil {
			err = s.objects.Step("object:link", link)
		}
	}
	return err
}

func (s *Store) makeObjectDir(name string) error {
	err := s.objects.Step("object:mkdir", func() error {
		return pathError("create", s.objects, name, unix.Mkdirat(int(s.objects.File().Fd()), name, dirPerm))
	})
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return s.objects.Diagnose(err)
}
