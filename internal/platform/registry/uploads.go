package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"regexp"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
)

const (
	// maxUploads is how many uploads may be under way at once.
	maxUploads = 128
	// uploadIdle is how long an upload may lie untouched.
	uploadIdle = 30 * time.Minute

	// uploadsName is the directory of uploads, among those of blobs, and uploadLabel that of operations there.
	uploadsName = "uploads"
	uploadLabel = "registry-upload"
	// lockName is locked by who begins uploads or ends idle ones.
	lockName = ".lock"
)

// uploads are those under way over several requests, each of which may be made at another platform over the same directory. One is a
// file that grows: its name says the upload's ID and, by a hash, the repository; its length how much has arrived; the time of its last
// change when it was used last; and who works on it holds a lock (flock(2)) on it, which ends with its process. When it is finished the
// file itself moves to its place among the blobs, so it has one name at any time.
type uploads struct {
	dir *durable.Dir
	now func() time.Time

	mu sync.Mutex
	// sums are the checkpoints of uploads by name, as this process left them.
	sums map[string]checkpoint
	// whole is how many uploads without a name are under way here.
	whole int
	swept time.Time
}

func newUploads(dir *durable.Dir, now func() time.Time) *uploads {
	return &uploads{dir: dir, now: now, sums: map[string]checkpoint{}}
}

// uploadID is the form of rand.Text.
var uploadID = regexp.MustCompile(`^[A-Z2-7]{26}$`)

// fileName is the name of an upload's file. An upload of another repository has another name.
func fileName(id, repository string) string {
	return id + "-" + sumLike("", []byte(repository))[len("sha256:"):][:16]
}

func tooMany() error {
	return refuse(http.StatusTooManyRequests, codeTooManyRequests, "%d uploads are under way; finish or cancel some", maxUploads)
}

// start begins an upload. Who wants to work on it takes it.
func (u *uploads) start(ctx context.Context, repository string) (*session, error) {
	dir, err := u.dir.MakeSub(uploadsName, 0o700, uploadLabel)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	// Whoever sweeps now would take the new file for an old one, until it has its time.
	lock, err := dir.Lock(ctx, lockName, durable.Exclusive)
	if err != nil {
		return nil, err
	}
	defer func() { _ = lock.Unlock() }()
	left, err := u.sweepLocked(dir)
	if err != nil {
		return nil, err
	}
	if left+u.wholes() >= maxUploads {
		return nil, tooMany()
	}
	s := &session{id: rand.Text(), repository: repository}
	s.name = fileName(s.id, repository)
	// It isn't synced: what a power cut takes begins again.
	if err := dir.WriteLoose(s.name, nil, 0o600, uploadLabel); err != nil {
		return nil, err
	}
	return s, dir.Root().Chtimes(s.name, u.now(), u.now())
}

func (u *uploads) wholes() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.whole
}

// startWhole begins an upload that ends with the same request. Its file has no name, so that nothing of it is left after a crash.
func (u *uploads) startWhole(repository string) (*session, error) {
	u.mu.Lock()
	if u.whole >= maxUploads {
		u.mu.Unlock()
		return nil, tooMany()
	}
	u.whole++
	u.mu.Unlock()
	f, err := u.dir.Temp(".", 0o600, blobLabel)
	if err != nil {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.whole--
		return nil, err
	}
	return &session{repository: repository, file: f, sum: nothingYet()}, nil
}

// take returns the upload of that ID in that repository, locked. Who takes it keeps or drops it.
func (u *uploads) take(id, repository string) (*session, error) {
	unknown := refuse(http.StatusNotFound, codeUploadUnknown, "no such upload in %s; begin again", repository)
	if !uploadID.MatchString(id) {
		return nil, unknown
	}
	s := &session{id: id, repository: repository, name: fileName(id, repository)}
	dir, err := u.dir.Sub(uploadsName)
	if err == nil {
		defer dir.Close()
		s.file, err = openLocked(dir, s.name)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, unknown
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, refuse(http.StatusConflict, codeUploadInvalid, "another request is writing to this upload")
	case err != nil:
		return nil, err
	}
	info, err := s.file.Stat()
	if err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	s.size = info.Size()
	u.mu.Lock()
	defer u.mu.Unlock()
	sum, known := u.sums[s.name]
	delete(u.sums, s.name)
	if s.sum = sum; !known || sum.size > s.size {
		s.sum = nothingYet()
	}
	return s, nil
}

// openLocked opens an upload's file and locks it. The error wraps fs.ErrNotExist where that name isn't there, or isn't any more once the
// lock is held: then it was ended, or has become a blob, which nobody may write to.
func openLocked(dir *durable.Dir, name string) (*os.File, error) {
	f, err := dir.Root().OpenFile(name, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	err = os.NewSyscallError("flock", unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	if err == nil {
		err = stillNamed(dir, name, f)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func stillNamed(dir *durable.Dir, name string, f *os.File) error {
	there, err := dir.Root().Lstat(name)
	if err != nil {
		return err
	}
	here, err := f.Stat()
	if err == nil && !os.SameFile(here, there) {
		err = &fs.PathError{Op: "lock", Path: f.Name(), Err: fs.ErrNotExist}
	}
	return err
}

// touch says on the file that it was used now, by the clock that the sweep goes by.
func (u *uploads) touch(s *session) error {
	at := unix.NsecToTimeval(u.now().UnixNano())
	return os.NewSyscallError("futimes", unix.Futimes(int(s.file.Fd()), []unix.Timeval{at, at}))
}

// keep gives the upload back for further requests, at any platform. What has arrived is on the disk when it returns nil: otherwise nobody
// could be told that it has. After an error the upload is over.
func (u *uploads) keep(s *session) error {
	err := u.dir.Step(uploadLabel+":fsync", s.file.Sync)
	if err == nil {
		err = u.touch(s)
	}
	if err != nil {
		u.drop(s)
		return fmt.Errorf("keep an upload for %s: %w", s.repository, u.dir.Diagnose(err))
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.sums[s.name] = s.sum
	// A program that is just being started has the file, and with it the lock, until its exec.
	_ = unix.Flock(int(s.file.Fd()), unix.LOCK_UN)
	_ = s.file.Close()
	return nil
}

// drop ends an upload that the caller has taken, unless it is a blob by now.
func (u *uploads) drop(s *session) {
	// Nothing was promised of what is in it, and what can't be removed is swept later.
	defer func() { _ = s.file.Close() }()
	if s.name == "" {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.whole--
		return
	}
	dir, err := u.dir.Sub(uploadsName)
	if err != nil {
		return
	}
	defer dir.Close()
	if stillNamed(dir, s.name, s.file) == nil {
		_ = dir.Remove(s.name, uploadLabel)
	}
}
