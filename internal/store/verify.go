package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

// Verified counts what VerifyObjects found in order.
type Verified struct {
	Enforced int64 // objects whose digest the kernel enforces on every read
	Hashed   int64 // objects without fs-verity, whose bytes were hashed
	Bytes    int64 // bytes hashed
}

// VerifyObject checks that an object holds the bytes of its digest: by asking the kernel where
// fs-verity is enabled on it, else by hashing it. An error of kind Broken names the digest.
func (s *Store) VerifyObject(d fsverity.Digest) error {
	_, err := s.verifyObject(d)
	return err
}

func (s *Store) verifyObject(d fsverity.Digest) (hashed int64, err error) {
	f, err := s.OpenObject(d)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	hashed = -1
	got, err := s.measure(f)
	if err != nil {
		var size uint64
		got, size, err = fsverity.SumFile(f)
		hashed = int64(size)
	}
	if err != nil {
		return 0, s.objectError("verify", d, err)
	}
	if got != d {
		return 0, fault.New(fault.Broken, fault.Verify, hintDamaged,
			"object %s is damaged: %s holds the bytes of %s", d, f.Name(), got)
	}
	return hashed, nil
}

// enforced reports whether the kernel enforces just this digest on the object. It is asked of
// thousands of objects in every boot, hence these three system calls and no more; why it says no,
// verifyObject finds out.
func (s *Store) enforced(d fsverity.Digest) bool {
	s.naming.wait(d)
	fd, err := unix.Openat(int(s.objects.File().Fd()), d.ObjectPath(), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	got, err := fsverity.MeasureFD(fd)
	return err == nil && got == d
}

// others returns those of the objects, in their order, of which enforced says no.
func (s *Store) others(ctx context.Context, digests []fsverity.Digest) ([]fsverity.Digest, error) {
	if s.Verity() != nil {
		return digests, nil //nolint:nilerr // a kernel without fs-verity enforces none
	}
	no := make([]bool, len(digests))
	err := s.forEach(ctx, waiters(), digests, func(i int, d fsverity.Digest) error {
		no[i] = !s.enforced(d)
		return nil
	})
	var left []fsverity.Digest
	for i, d := range digests {
		if no[i] {
			left = append(left, d)
		}
	}
	return left, err
}

// waiters is how many goroutines wait for the disk at the same time, as all of them do more than they compute.
func waiters() int { return 8 * runtime.GOMAXPROCS(0) }

// measure asks the kernel for f's digest, where the store's filesystem has fs-verity at all.
func (s *Store) measure(f *os.File) (fsverity.Digest, error) {
	if err := s.Verity(); err != nil {
		return fsverity.Digest{}, err
	}
	return fsverity.Measure(f)
}

// VerifyObjects is VerifyObject for many objects, on all cores. It stops at the first that is
// missing or damaged, or when ctx ends.
func (s *Store) VerifyObjects(ctx context.Context, digests []fsverity.Digest) (Verified, error) {
	var enforced, hashed, bytes atomic.Int64
	err := s.forEach(ctx, runtime.GOMAXPROCS(0), digests, func(_ int, d fsverity.Digest) error {
		n, err := s.verifyObject(d)
		switch {
		case err != nil:
			return err
		case n < 0:
			enforced.Add(1)
		default:
			hashed.Add(1)
			bytes.Add(n)
		}
		return nil
	})
	return Verified{enforced.Load(), hashed.Load(), bytes.Load()}, err
}

// EnableVerity enables fs-verity on the objects that lack it, checks the digests that the kernel
// computed, and puts that on the disk. Where kernel or filesystem have no fs-verity the error says so (see Verity).
// A store that was opened for reading only is in order as long as no object lacks it.
func (s *Store) EnableVerity(ctx context.Context, digests []fsverity.Digest) error {
	if err := s.Verity(); err != nil && s.readOnly {
		return s.writable()
	} else if err != nil {
		return err
	}
	digests, err := s.others(ctx, digests)
	if err != nil {
		return err
	}
	var enabled atomic.Bool
	err = s.forEach(ctx, waiters(), digests, func(_ int, d fsverity.Digest) error {
		changed, err := s.enableVerity(d)
		if changed {
			enabled.Store(true)
		}
		return err
	})
	if err != nil || !enabled.Load() {
		return err
	}
	return s.objects.SyncFS("verity")
}

// enableVerity reports whether fs-verity wasn't enabled before.
func (s *Store) enableVerity(d fsverity.Digest) (bool, error) {
	f, err := s.OpenObject(d)
	if err != nil {
		return false, err
	}
	defer f.Close()
	got, err := fsverity.Measure(f)
	changed := errors.Is(err, fsverity.ErrNotEnabled)
	if changed {
		if err := s.writable(); err != nil {
			return false, err
		}
		err = s.objects.Step("object:verity", func() error { return fsverity.Enable(f) })
		if err == nil || errors.Is(err, fsverity.ErrAlreadyEnabled) {
			got, err = fsverity.Measure(f)
		}
	}
	if err != nil {
		return false, s.objectError("enable fs-verity on", d, err)
	}
	if got != d {
		return false, fault.New(fault.Broken, fault.Verify, hintDamaged,
			"object %s is damaged: the kernel measures %s", d, got)
	}
	return changed, nil
}

// forEach calls do for every digest and its index, from several goroutines, until one call fails.
func (s *Store) forEach(ctx context.Context, workers int, digests []fsverity.Digest, do func(int, fsverity.Digest) error) error {
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(workers, len(digests)) {
		group.Go(func() error {
			for {
				i := next.Add(1) - 1
				if i >= int64(len(digests)) {
					return nil
				}
				if err := context.Cause(ctx); err != nil {
					return fmt.Errorf("after %d of %d objects: %w", i, len(digests), err)
				}
				if err := do(int(i), digests[i]); err != nil {
					return err
				}
			}
		})
	}
	return group.Wait()
}
