package live

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount"
)

// hold keeps new trees out of the namespaces that are to go on with the old ones: the mounts there that
// would receive them become private, and nothing else changes. The price: nothing that is mounted at
// "/" here later on is seen there until the processes are restarted. Beside an error it returns those that it came to.
func (w *work) hold(names []string) ([]Namespace, error) {
	if len(names) == 0 {
		return nil, nil
	}
	kept, err := w.namespaces(names)
	if err != nil {
		return nil, err
	}
	if err := w.noteCut(kept); err != nil {
		return nil, err
	}
	for i, n := range kept {
		if len(n.receives) == 0 {
			continue
		}
		if err := n.enter(n.makePrivate); err != nil {
			return kept[:i+1], fault.New(fault.Refuse, fault.Mount, atBoot, "keep the sandbox of process %d (%s) as it is: %w", n.PIDs[0], strings.Join(n.Commands, ", "), err)
		}
	}
	return kept, nil
}

// holdLate looks again, after the new trees came: a namespace that was just being made when hold looked has got them on top of its
// own mounts. There a new tree goes again, or gets the attributes of what it came upon: the processes see what they may
// see, even if not the tree that they began with, until they are restarted. It returns those namespaces.
func (w *work) holdLate(names []string, held []Namespace) ([]Namespace, error) {
	if len(names) == 0 {
		return nil, nil
	}
	found, err := w.namespaces(names)
	if err != nil {
		return nil, err
	}
	var late []Namespace
	var errs []error
	for _, n := range found {
		known := slices.ContainsFunc(held, func(h Namespace) bool { return h.Inode == n.Inode })
		if known || len(n.covers)+len(n.wider) == 0 {
			continue
		}
		late = append(late, n)
		if err := n.enter(n.uncover); err != nil {
			errs = append(errs, fmt.Errorf("process %d (%s): %w", n.PIDs[0], strings.Join(n.Commands, ", "), err))
		}
	}
	return late, errors.Join(errs...)
}

// uncover works in the namespace, as makePrivate does.
func (n Namespace) uncover(theirs mount.Table) error {
	for _, e := range theirs {
		is := func(id mount.ID) bool { return id.Mount == e.ID.Mount }
		cover := slices.ContainsFunc(n.covers, is)
		if !cover && !slices.ContainsFunc(n.wider, is) {
			continue
		}
		upon, _ := theirs.Find(e.Parent)
		if err := uncover(e, upon, cover); err != nil {
			return err
		}
	}
	return n.makePrivate(theirs)
}

// uncover takes a mount away, here and in no other place, or narrows it to what the one that it is upon allows.
func uncover(e, upon mount.Entry, away bool) error {
	fd, err := unix.Open(e.Point, unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: e.Point, Err: err}
	}
	f := os.NewFile(uintptr(fd), e.Point)
	defer f.Close()
	id, _, err := mount.Identify(f)
	if err != nil || id.Mount != e.ID.Mount {
		return err // it is gone, or what came upon it is the namespace's own
	}
	if err := makePrivate(f); err != nil {
		return err
	}
	if away {
		if err := unix.Unmount(e.Point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return &os.PathError{Op: "unmount", Path: e.Point, Err: err}
		}
		return nil
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: kernelAttrs(attrsOf(upon))}); err != nil {
		return fmt.Errorf("give the mount at %s the attributes of what it came upon: %w", e.Point, err)
	}
	return nil
}

// kernelAttrs are attributes as mount_setattr(2) takes them.
func kernelAttrs(attrs mount.Attr) uint64 {
	var set uint64
	for attr, flag := range map[mount.Attr]uint64{
		mount.ReadOnly: unix.MOUNT_ATTR_RDONLY, mount.NoSUID: unix.MOUNT_ATTR_NOSUID, mount.NoDev: unix.MOUNT_ATTR_NODEV, mount.NoExec: unix.MOUNT_ATTR_NOEXEC,
	} {
		if attrs&attr != 0 {
			set |= flag
		}
	}
	return set
}

// enter does something in the namespace by the first of its processes that still lives. Nothing is done
// once all have ended.
func (n Namespace) enter(do func(mount.Table) error) error {
	for _, pid := range n.PIDs {
		err := inNamespace(pid, n.Inode, do)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, errOther) {
			continue
		}
		return err
	}
	return nil
}

// makePrivate works in the namespace, whose /proc may be another or none: it is given the table.
func (n Namespace) makePrivate(theirs mount.Table) error {
	for _, e := range theirs {
		if !slices.ContainsFunc(n.receives, func(id mount.ID) bool { return id.Mount == e.ID.Mount }) {
			continue
		}
		fd, err := unix.Open(e.Point, unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: e.Point, Err: err}
		}
		f := os.NewFile(uintptr(fd), e.Point)
		id, _, err := mount.Identify(f)
		if err == nil && id.Mount == e.ID.Mount {
			err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Propagation: unix.MS_PRIVATE})
		} else if err == nil {
			err = fmt.Errorf("%s is covered by another mount: %w", e.Point, unix.EBUSY)
		}
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// errOther says that a process is in another namespace by now, or a new process has its number.
var errOther = errors.New("the process is in another mount namespace")

// inNamespace does something in the mount namespace of a process, and gives it that namespace's table.
func inNamespace(pid int, inode uint64, do func(mount.Table) error) error {
	return onLostThread(func() error {
		self, err := os.OpenRoot("/proc/self/task")
		if err != nil {
			return err
		}
		defer self.Close()
		ns, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/mnt")
		if err != nil {
			return err
		}
		defer ns.Close()
		var stat unix.Stat_t
		if err := unix.Fstat(int(ns.Fd()), &stat); err != nil {
			return err
		}
		if stat.Ino != inode {
			return errOther
		}
		// setns(2): a thread that shares its root and working directory with others can't enter.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("enter the mount namespace: %w", err)
		}
		f, err := self.Open(strconv.Itoa(unix.Gettid()) + "/mountinfo")
		if err != nil {
			return err
		}
		defer f.Close()
		table, err := mount.ParseTable(f)
		if err != nil {
			return err
		}
		return do(table)
	})
}

// onLostThread runs do on a thread that ends with it. It is never the process's first thread: that one
// would not end, and what /proc/self shows is that one's.
func onLostThread(do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- onLostThread(do) // while this goroutine keeps the first thread busy
			runtime.UnlockOSThread()
			return
		}
		done <- do() // the thread stays locked, and ends with the goroutine
	}()
	return <-done
}
