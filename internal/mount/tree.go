package mount

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Clone returns a detached copy of the mount that f lies in, from f downwards: a bind mount that
// is nowhere yet. With submounts set, the mounts below come along.
func Clone(f *os.File, submounts bool) (*Mount, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	if submounts {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(int(f.Fd()), "", flags)
	runtime.KeepAlive(f)
	if err != nil {
		return nil, fmt.Errorf("clone the mount at %s: %w", f.Name(), err)
	}
	return newMount(fd, f.Name()), nil
}

// Move takes the mount whose root is at path, with all that is mounted below, to target. The
// mount that it is taken from must not have shared propagation (mount_namespaces(7)).
func Move(path string, target *os.File) error {
	source, err := openPath(path)
	if err != nil {
		return fmt.Errorf("move the mount at %s: %w", path, err)
	}
	m := &Mount{f: source, what: path}
	defer m.Close()
	return m.AttachAt(target)
}

// MakePrivate stops propagation into and out of the mount at path and all mounts below it. In a
// mount namespace of one's own it keeps every later change from reaching the parent namespace.
func MakePrivate(path string) error {
	err := unix.MountSetattr(unix.AT_FDCWD, path, unix.AT_RECURSIVE, &unix.MountAttr{Propagation: unix.MS_PRIVATE})
	if err != nil {
		return fmt.Errorf("make the mounts at and below %s private: %w", path, err)
	}
	return nil
}
