package store

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

// HasObject reports whether the object is here. It doesn't look at its bytes.
func (s *Store) HasObject(d fsverity.Digest) bool {
	s.naming.wait(d)
	var st unix.Stat_t
	err := unix.Fstatat(int(s.objects.File().Fd()), d.ObjectPath(), &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
}

// OpenObject opens an object for reading. An object that isn't here gives an error that wraps
// fs.ErrNotExist.
func (s *Store) OpenObject(d fsverity.Digest) (*os.File, error) {
	s.naming.wait(d)
	path := d.ObjectPath()
	// Without O_NONBLOCK the open of a FIFO would wait for its writer.
	fd, err := unix.Openat(int(s.objects.File().Fd()), path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, s.objectError("open", d, err)
	}
	f := os.NewFile(uintptr(fd), filepath.Join(s.objects.Path(), path))
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		f.Close()
		return nil, s.objectError("open", d, err)
	}
	return f, nil
}

// objectError says what was being done to which object; nil stays nil.
func (s *Store) objectError(doing string, d fsverity.Digest, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.Broken, fault.Verify, "boot with the platform in reach, which pulls the module again", "%s object %s: it isn't in the store: %w", doing, d, err)
	}
	return s.objects.Diagnose(pathError(doing+" object", s.objects, d.ObjectPath(), err))
}

// pathError says what was being done to a path in dir; nil stays nil.
func pathError(doing string, dir *durable.Dir, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: doing, Path: filepath.Join(dir.Path(), path), Err: err}
}

// Objects yields the digest of every object that is here, in no particular order, and stops after
// an error. Names that are none of the store's are passed over.
func (s *Store) Objects() iter.Seq2[fsverity.Digest, error] {
	return func(yield func(fsverity.Digest, error) bool) {
		s.naming.waitAll()
		dirs, err := s.objects.Names()
		if err != nil {
			yield(fsverity.Digest{}, err)
			return
		}
		for _, prefix := range dirs {
			if len(prefix) != 2 {
				continue
			}
			names, err := s.namesIn(prefix)
			if err != nil {
				yield(fsverity.Digest{}, err)
				return
			}
			for _, name := range names {
				var d fsverity.Digest
				if d, err = fsverity.ParseDigest(prefix + name); err == nil && !yield(d, nil) {
					return
				}
			}
		}
	}
}

func (s *Store) namesIn(prefix string) ([]string, error) {
	if _, err := hex.DecodeString(prefix); err != nil {
		return nil, nil
	}
	dir, err := s.objects.Sub(prefix)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Names()
}
