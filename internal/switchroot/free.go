package switchroot

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
)

// free removes everything below old that lies on old's own mount, and leaves old itself. It
// refuses unless old is on a ramfs or tmpfs: files there cost memory and nothing else.
func free(old *os.File) (Freed, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(old.Fd()), &fs); err != nil {
		return Freed{}, fmt.Errorf("look at the old root's file system: %w", err)
	}
	if fs.Type != unix.RAMFS_MAGIC && fs.Type != unix.TMPFS_MAGIC {
		return Freed{}, fault.New(fault.Refuse, fault.Destructive, "",
			"the old root is not in memory (file system type %#x): its files stay", fs.Type)
	}
	var freed Freed
	err := freed.below(old)
	return freed, err
}

// below goes on after a name that can't be removed, such as a mount point, and reports the first
// error that isn't about those.
func (freed *Freed) below(dir *os.File) error {
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	var first error
	for _, name := range names {
		err := freed.entry(dir, name)
		if err != nil && first == nil {
			first = fmt.Errorf("free the old root: %s: %w", name, err)
		}
	}
	return first
}

func (freed *Freed) entry(dir *os.File, name string) error {
	fd := int(dir.Fd())
	var stat unix.Stat_t
	if err := unix.Fstatat(fd, name, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	flags := 0
	if stat.Mode&unix.S_IFMT == unix.S_IFDIR {
		flags = unix.AT_REMOVEDIR
		below, err := openDirAt(dir, name)
		if errors.Is(err, unix.EXDEV) {
			return nil // something is mounted there
		}
		if err != nil {
			return err
		}
		err = freed.below(below)
		below.Close()
		if err != nil {
			return err
		}
	}
	err := unix.Unlinkat(fd, name, flags)
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOTEMPTY) {
		return nil // a mount point, or a directory that leads to one
	}
	if err != nil {
		return err
	}
	freed.Files++
	if stat.Mode&unix.S_IFMT == unix.S_IFREG && stat.Nlink == 1 {
		freed.Bytes += stat.Size
	}
	return nil
}
