package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

// Digest returns the digest of the bytes written so far.
func (w *ObjectWriter) Digest() fsverity.Digest { return w.hasher().Sum() }

// Replace is Commit for an object that is here and damaged: this one takes its place in one step,
// once its bytes are on the disk and, where the kernel and the filesystem have it, fs-verity is
// enabled on it. Until then, and when Replace fails, the other stays as it is. Who has that one
// open keeps reading it.
//
// The object is on the disk for good when Replace returns.
func (w *ObjectWriter) Replace() (fsverity.Digest, error) {
	if w.buf == nil {
		return fsverity.Digest{}, os.ErrClosed
	}
	defer w.Abort()
	if w.err != nil {
		return fsverity.Digest{}, w.err
	}
	d := w.hasher().Sum()
	w.s.naming.wait(d)
	if err := w.s.shareLocked(); err != nil {
		return d, wrap(d, err)
	}
	return d, wrap(d, w.replace(d))
}

func (w *ObjectWriter) replace(d fsverity.Digest) error {
	if w.file == nil {
		if err := w.spill("."); err != nil {
			return err
		}
	}
	objects := w.s.objects
	temp, name, err := objects.MakeTemp(dirPerm, "mend")
	if err != nil {
		return err
	}
	defer temp.Close()
	if err = temp.Link(w.file, "object", "mend"); err == nil {
		// The kernel enables fs-verity on no file that is open for writing.
		err = w.file.Close()
		w.file = nil
	}
	if err == nil && w.s.Verity() == nil {
		err = w.s.enforce(temp.Root(), d)
	}
	if err == nil {
		err = objects.SyncFS("mend")
	}
	if err == nil {
		err = w.s.swapIn(int(temp.File().Fd()), d)
	}
	// What a kill leaves of it, the next Open sweeps away.
	return errors.Join(err, objects.RemoveTree(name, "mend"))
}

// enforce enables fs-verity on the new object in dir and checks what the kernel computed.
func (s *Store) enforce(dir *os.Root, d fsverity.Digest) error {
	f, err := dir.Open("object")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := s.objects.Step("mend:verity", func() error { return fsverity.Enable(f) }); err != nil {
		return s.objects.Diagnose(err)
	}
	got, err := fsverity.Measure(f)
	if err == nil && got != d {
		err = fault.New(fault.Broken, fault.Verify, "try again; check memory and disk if it happens again", "the kernel measures %s", got)
	}
	return err
}

// swapIn gives the file "object" of the directory from its name.
func (s *Store) swapIn(from int, d fsverity.Digest) error {
	path := d.ObjectPath()
	if err := s.makeObjectDir(path[:2]); err != nil {
		return err
	}
	rename := func() error {
		return pathError("replace", s.objects, path, unix.Renameat(from, "object", int(s.objects.File().Fd()), path))
	}
	err := s.objects.Step("mend:rename", rename)
	if errors.Is(err, unix.EISDIR) {
		// Something else has the name, which is no object at all.
		aside := filepath.Join(path[:2], ".aside-"+path[3:])
		if err = s.objects.Root().Rename(path, aside); err == nil {
			err = s.objects.Step("mend:rename", rename)
			err = errors.Join(err, s.objects.Root().RemoveAll(aside))
		}
	}
	if err != nil {
		return s.objects.Diagnose(err)
	}
	sub, err := s.objects.Sub(path[:2])
	if err != nil {
		return err
	}
	defer sub.Close()
	return sub.Sync("mend")
}

// Damaged checks objects on all cores and returns those that are missing, hold other bytes than
// their digest says, or can't be read, each with what is wrong. Unlike VerifyObjects it goes on to the last.
//
// With deep, every byte is read also where fs-verity is enabled, as the kernel checks a block only
// when it is read. The error is ctx's.
func (s *Store) Damaged(ctx context.Context, digests []fsverity.Digest, deep bool) (map[fsverity.Digest]error, error) {
	bad, _, err := s.Inspect(ctx, digests, deep)
	return bad, err
}

// Inspect is Damaged, and also returns the objects that are in order without the kernel's
// enforcing it (see EnableVerity).
func (s *Store) Inspect(ctx context.Context, digests []fsverity.Digest, deep bool) (damaged map[fsverity.Digest]error, bare []fsverity.Digest, err error) {
	if !deep {
		if digests, err = s.others(ctx, digests); err != nil {
			return nil, nil, err
		}
	}
	var mu sync.Mutex
	damaged = make(map[fsverity.Digest]error)
	err = s.forEach(ctx, runtime.GOMAXPROCS(0), digests, func(_ int, d fsverity.Digest) error {
		hashed, err := s.verifyObject(d)
		if err == nil && deep && hashed < 0 {
			err = s.readObject(d)
		}
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil:
			damaged[d] = err
		case hashed >= 0:
			bare = append(bare, d)
		}
		return nil
	})
	return damaged, bare, err
}

// readObject reads an object whole and hashes it, whatever the kernel says of it.
func (s *Store) readObject(d fsverity.Digest) error {
	f, err := s.OpenObject(d)
	if err != nil {
		return err
	}
	defer f.Close()
	got, _, err := fsverity.SumFile(f)
	switch {
	case errors.Is(err, unix.EIO):
		return fault.New(fault.Broken, fault.Verify, hintDamaged, "object %s is damaged: the kernel refuses to read %s: %w", d, f.Name(), err)
	case err != nil:
		return s.objectError("read", d, err)
	case got != d:
		return fault.New(fault.Broken, fault.Verify, hintDamaged, "object %s is damaged: %s holds the bytes of %s", d, f.Name(), got)
	}
	return nil
}

// hintDamaged is what a person can do about a damaged object.
const hintDamaged = "powernode-agent update fetches it again, as does a boot with its registry in reach"
