package durable

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Diagnose is the function of that name for d's path.
func (d *Dir) Diagnose(err error) error { return Diagnose(d.path, err) }

// Diagnose gives an error of the disk below path its kind and remedy: a full disk, a read-only
// filesystem, a failing device. Other errors, nil and those that have a kind already come back
// as they are.
func Diagnose(path string, err error) error {
	if _, done := errors.AsType[*fault.Error](err); done || err == nil {
		return err
	}
	switch {
	case errors.Is(err, unix.ENOSPC):
		return fault.New(fault.Retry, fault.Mount, "free space on "+path+left(path), "%w", err)
	case errors.Is(err, unix.EDQUOT):
		return fault.New(fault.Retry, fault.Mount, "raise the disk quota or free space on "+path, "%w", err)
	case errors.Is(err, unix.EROFS):
		return fault.New(fault.Refuse, fault.Mount, "mount the filesystem of "+path+" writable", "%w", err)
	case errors.Is(err, unix.EIO):
		return fault.New(fault.Broken, fault.Mount, "check the kernel log and the disk that holds "+path, "%w", err)
	}
	return err
}

// left says what the filesystem has left, since one can run out of inodes with space to spare.
func left(path string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return ""
	}
	return fmt.Sprintf(", which has %d MiB and %d inodes left", st.Bavail*uint64(st.Bsize)>>20, st.Ffree)
}
