package mount

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ID identifies one mount. It is the receipt that proves, later and from another process, that a
// mount is the same one.
type ID struct {
	// Mount is the ID of /proc/self/mountinfo. The kernel uses it again after an unmount.
	Mount int `json:"mount"`
	// Unique is never used again until the machine reboots; 0 before Linux 6.8.
	Unique uint64 `json:"unique,omitempty"`
	// Major and Minor are the device number of the file system.
	Major uint32 `json:"major"`
	Minor uint32 `json:"minor"`
}

// Same reports whether both stand for one mount, as far as the kernel's version lets it know.
func (id ID) Same(other ID) bool {
	if id.Unique != 0 && other.Unique != 0 {
		return id.Unique == other.Unique
	}
	return id.Mount == other.Mount && id.Major == other.Major && id.Minor == other.Minor
}

// Identify returns the identity of the mount that f lies on, and whether f is its root.
func Identify(f *os.File) (ID, bool, error) { return identify(f) }

// identify asks the kernel on which mount f lies, and whether f is the root of that mount.
func identify(f *os.File) (ID, bool, error) {
	defer runtime.KeepAlive(f)
	stat := func(mask int) (s unix.Statx_t, err error) {
		err = unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW, mask, &s)
		return s, err
	}
	s, err := stat(unix.STATX_MNT_ID)
	if err != nil {
		return ID{}, false, fmt.Errorf("identify the mount of %s: %w", f.Name(), err)
	}
	id := ID{Mount: int(s.Mnt_id), Major: s.Dev_major, Minor: s.Dev_minor}
	isRoot := s.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
	// The kernel ignores a mask bit that it doesn't know, and doesn't set it in the answer.
	if s, err := stat(unix.STATX_MNT_ID_UNIQUE); err == nil && s.Mask&unix.STATX_MNT_ID_UNIQUE != 0 {
		id.Unique = s.Mnt_id
	}
	return id, isRoot, nil
}
