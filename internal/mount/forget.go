package mount

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ForgetNames has the kernel forget what it has looked up in the file system of dir, a directory of it: all names that nobody uses at this
// moment. The file system stays as it is, and whoever has a file or directory open keeps that (reconfigure_super in fs/super.c shrinks the
// name cache of just this one). It takes CAP_SYS_ADMIN, and Linux 5.2.
func ForgetNames(dir *os.File) error {
	root, err := rootOf(dir)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	fd, err := unix.Fspick(root, "", unix.FSPICK_CLOEXEC|unix.FSPICK_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("pick the file system of %s: %w", dir.Name(), err)
	}
	defer unix.Close(fd)
	if err := unix.FsconfigReconfigure(fd); err != nil {
		return fmt.Errorf("have the names in %s forgotten: %w", dir.Name(), err)
	}
	return nil
}

// rootOf goes up to the root of the mount that dir is in. Names are forgotten through that alone.
func rootOf(dir *os.File) (int, error) {
	fd, err := unix.Openat(int(dir.Fd()), ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	runtime.KeepAlive(dir)
	for err == nil {
		var stat unix.Statx_t
		if err = unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_NO_AUTOMOUNT, 0, &stat); err != nil {
			break
		}
		if stat.Attributes_mask&stat.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
			return fd, nil
		}
		up, upErr := unix.Openat(fd, "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		err = errors.Join(upErr, unix.Close(fd))
		fd = up
	}
	if fd >= 0 {
		_ = unix.Close(fd)
	}
	return -1, fmt.Errorf("look at %s: %w", dir.Name(), err)
}
