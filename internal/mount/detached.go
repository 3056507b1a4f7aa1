package mount

import (
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// moveMountBeneath is MOVE_MOUNT_BENEATH (linux/mount.h, since Linux 6.5), which x/sys lacks: the
// mount goes beneath the topmost one at the target instead of on top of it.
const moveMountBeneath = 0x200

// Mount is a handle on a mount: detached as New, Clone and Union return it, then, after Attach,
// part of the caller's mount namespace. Close it in every case.
type Mount struct {
	f    *os.File
	what string
}

func newMount(fd int, what string) *Mount {
	return &Mount{f: os.NewFile(uintptr(fd), what), what: what}
}

// Close gives up the handle. A mount that is still detached is dissolved; one that was attached
// stays. While the handle is open, the mount is busy.
func (m *Mount) Close() error { return m.f.Close() }

// File returns the root of the mount as an O_PATH descriptor that lives as long as m.
func (m *Mount) File() *os.File { return m.f }

// OpenRoot opens the root of the mount, attached or not, for reading and writing below it.
func (m *Mount) OpenRoot() (*os.Root, error) { return os.OpenRoot(procPath(m.f)) }

// OpenDir opens the root directory of the mount, attached or not, for reading.
func (m *Mount) OpenDir() (*os.File, error) {
	fd, err := unix.Openat(int(m.f.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	runtime.KeepAlive(m.f)
	if err != nil {
		return nil, fmt.Errorf("open the root of %s: %w", m.what, err)
	}
	return os.NewFile(uintptr(fd), m.what), nil
}

// Attach puts the mount on top of whatever is at path, a directory (or a file, where the mount's
// root is one). Symlinks in path are followed; for a path inside a root that isn't trusted to be
// free of them use AttachAt with OpenIn.
func (m *Mount) Attach(path string) error { return m.attach(path, 0) }

// AttachBeneath puts the mount beneath the topmost mount at path, which must be a mount point
// (Linux 6.5). Unmounting the upper one afterwards reveals it without a moment between.
func (m *Mount) AttachBeneath(path string) error { return m.attach(path, moveMountBeneath) }

func (m *Mount) attach(path string, flags int) error {
	target, err := openPath(path)
	if err != nil {
		return fmt.Errorf("attach %s: open %s: %w", m.what, path, err)
	}
	defer target.Close()
	return m.moveTo(target, flags)
}

// AttachAt puts the mount on top of the directory (or file) that target is open on.
func (m *Mount) AttachAt(target *os.File) error { return m.moveTo(target, 0) }

// AttachBeneathAt is AttachBeneath for the mount whose root target is open on, which must be the
// topmost one there.
func (m *Mount) AttachBeneathAt(target *os.File) error { return m.moveTo(target, moveMountBeneath) }

func (m *Mount) moveTo(target *os.File, flags int) error {
	flags |= unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	err := unix.MoveMount(int(m.f.Fd()), "", int(target.Fd()), "", flags)
	runtime.KeepAlive(m.f)
	runtime.KeepAlive(target)
	if err != nil {
		return fmt.Errorf("attach %s at %s: %w", m.what, target.Name(), err)
	}
	return nil
}

// SetAttr sets and clears attributes of the mount and of all mounts below it.
func (m *Mount) SetAttr(set, clear Attr) error {
	return m.setattr(&unix.MountAttr{Attr_set: uint64(set), Attr_clr: uint64(clear)})
}

func (m *Mount) setattr(attr *unix.MountAttr) error {
	err := unix.MountSetattr(int(m.f.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, attr)
	runtime.KeepAlive(m.f)
	if err != nil {
		return fmt.Errorf("change attributes of %s: %w", m.what, err)
	}
	return nil
}

// ID returns the identity of the mount, to be kept as the proof for a later Unmount.
func (m *Mount) ID() (ID, error) {
	id, _, err := identify(m.f)
	return id, err
}

// procPath names an open file by its descriptor, for calls that take a path only. It is valid in
// this process as long as f is open.
func procPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// openPath opens a place to mount on, following symlinks, without needing any right on it.
func openPath(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// OpenIn opens path inside root as a place to mount on or to clone from. No symlink and no magic
// link is followed and nothing outside root is reached, whatever the tree holds.
func OpenIn(root *os.File, path string) (*os.File, error) {
	fd, err := unix.Openat2(int(root.Fd()), path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	runtime.KeepAlive(root)
	if err != nil {
		return nil, fmt.Errorf("open %s inside %s: %w", path, root.Name(), err)
	}
	return os.NewFile(uintptr(fd), path), nil
}
