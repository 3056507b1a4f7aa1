package registry

import (
	"errors"
	"io/fs"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
)

// sweepInterval is how often idle uploads are looked for, at most, while nobody begins one.
const sweepInterval = time.Minute

// sweep ends the uploads that nobody touched for uploadIdle, whichever platform they were begun at, if that wasn't done just now.
func (u *uploads) sweep() error {
	u.mu.Lock()
	due := u.now().Sub(u.swept).Abs() >= sweepInterval
	u.mu.Unlock()
	if !due {
		return nil
	}
	dir, err := u.dir.Sub(uploadsName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	lock, err := dir.TryLock(lockName, durable.Exclusive)
	if _, locked := errors.AsType[*durable.LockedError](err); locked {
		return nil // whoever has it does the same
	}
	if err != nil {
		return err
	}
	defer func() { _ = lock.Unlock() }()
	_, err = u.sweepLocked(dir)
	return err
}

// sweepLocked is sweep by who has the lock, now. It returns how many uploads are left.
func (u *uploads) sweepLocked(dir *durable.Dir) (left int, err error) {
	names, err := dir.Names()
	if err != nil {
		return 0, err
	}
	there := map[string]bool{}
	for _, name := range names {
		if name == lockName || u.sweepOne(dir, name) {
			continue
		}
		there[name] = true
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.swept = u.now()
	for name := range u.sums {
		// One that was begun or given back meanwhile is read again: no harm.
		if !there[name] {
			delete(u.sums, name)
		}
	}
	return len(there), nil
}

// sweepOne ends an upload that is idle and that nobody is writing to, and reports whether it isn't there any more.
func (u *uploads) sweepOne(dir *durable.Dir, name string) bool {
	info, err := dir.Root().Lstat(name)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	// A time in the future is of a clock that was put back.
	if u.now().Sub(info.ModTime()).Abs() <= uploadIdle {
		return false
	}
	f, err := openLocked(dir, name)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	defer f.Close()
	return dir.Remove(name, uploadLabel) == nil
}
