package durable

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
)

// LockMode says who else may hold a lock.
type LockMode int

// The modes.
const (
	Shared    LockMode = unix.LOCK_SH // others that share it
	Exclusive LockMode = unix.LOCK_EX // nobody
)

// Lock is an advisory lock (flock(2)) on a file. It ends with Unlock or with its process, so it
// is never stale.
type Lock struct{ f *os.File }

// heldFiles keeps the files of locks reachable: the garbage collector closes a file that nobody refers to any more, and its lock
// would end with it.
var heldFiles sync.Map

// Holder is a process that holds a lock.
type Holder struct {
	PID     int
	Command string // the process's short name, "" if it is gone already
}

// LockedError says who holds a lock that was wanted. Holders is empty where the kernel's lock
// table doesn't tell, as for a process of another PID namespace.
type LockedError struct {
	Path    string
	Holders []Holder
}

// Error names the lock and its holders.
func (e *LockedError) Error() string {
	if len(e.Holders) == 0 {
		return e.Path + " is locked by another process"
	}
	names := make([]string, len(e.Holders))
	for i, h := range e.Holders {
		names[i] = strings.TrimSpace(fmt.Sprintf("process %d %s", h.PID, h.Command))
	}
	return e.Path + " is locked by " + strings.Join(names, ", ")
}

// TryLock takes the lock on a file of that name, creating it with mode 0600, or returns an error
// with a *LockedError in its chain.
func (d *Dir) TryLock(name string, mode LockMode) (*Lock, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	fd, err := unix.Openat(d.fd(), name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, d.Diagnose(d.pathError("lock", name, err))
	}
	l := &Lock{os.NewFile(uintptr(fd), d.path+"/"+name)}
	if err := l.Try(mode); err != nil {
		l.f.Close()
		return nil, err
	}
	heldFiles.Store(l.f, nil)
	return l, nil
}

// Lock is TryLock that waits for the holders until ctx ends.
func (d *Dir) Lock(ctx context.Context, name string, mode LockMode) (*Lock, error) {
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		l, err := d.TryLock(name, mode)
		if _, locked := errors.AsType[*LockedError](err); !locked {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, context.Cause(ctx))
		case <-time.After(wait):
		}
	}
}

// Try changes the lock's mode, or returns an error with a *LockedError in its chain; the lock may
// then be lost altogether, since flock(2) gives up the old one first.
func (l *Lock) Try(mode LockMode) error {
	err := unix.Flock(int(l.f.Fd()), int(mode)|unix.LOCK_NB)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EWOULDBLOCK):
		held := &LockedError{Path: l.f.Name(), Holders: l.holders()}
		return fault.New(fault.Retry, fault.General, "wait until it has finished, or stop it", "%w", held)
	}
	return &fs.PathError{Op: "lock", Path: l.f.Name(), Err: err}
}

// Unlock gives the lock up.
func (l *Lock) Unlock() error {
	heldFiles.Delete(l.f)
	// A program that another goroutine starts has all files until its exec, and with them the lock, which closing alone would leave to it.
	return errors.Join(unix.Flock(int(l.f.Fd()), unix.LOCK_UN), l.f.Close())
}

func (l *Lock) holders() []Holder {
	var st unix.Stat_t
	if err := unix.Fstat(int(l.f.Fd()), &st); err != nil {
		return nil
	}
	table, err := os.Open("/proc/locks")
	if err != nil {
		return nil
	}
	defer table.Close()
	var holders []Holder
	for _, pid := range flockHolders(table, unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino) {
		command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		holders = append(holders, Holder{PID: pid, Command: strings.TrimSpace(string(command))})
	}
	return holders
}

// flockHolders finds the processes that hold a flock on an inode, in the format of /proc/locks
// (proc_locks(5)): "1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF".
func flockHolders(table io.Reader, major, minor uint32, inode uint64) []int {
	var pids []int
	want := fmt.Sprintf("%02x:%02x:%d", major, minor, inode)
	lines := bufio.NewScanner(io.LimitReader(table, 1<<20))
	for lines.Scan() {
		// A waiter's line has "->" in the second place.
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || fields[1] != "FLOCK" || fields[5] != want {
			continue
		}
		if pid, err := strconv.Atoi(fields[4]); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}
