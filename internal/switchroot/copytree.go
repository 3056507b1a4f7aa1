package switchroot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// copyDepth bounds the nesting of directories: two descriptors are open for each level.
const copyDepth = 200

// inode names a file of the source, to find its hard links by.
type inode struct{ dev, ino uint64 }

// CopyOptions say how to copy a tree. The zero value copies all of it or fails.
type CopyOptions struct {
	// Damaged, if not nil, is told of each file that can't be read because of EIO: its digest
	// isn't the one that the kernel enforces, or the disk fails. Its copy is a symlink to itself,
	// so that opening it fails (ELOOP), where a program that found nothing might go on with
	// defaults.
	Damaged func(path string, err error)
}

type treeCopy struct {
	CopyOptions
	ctx   context.Context
	top   *os.File         // the copy's root
	links map[inode]string // files with several names that were copied, by path below top
	// list and value are buffers for the names of extended attributes, and for one's value or a
	// part of a file: most files are small and have none.
	list, value [64 << 10]byte // XATTR_LIST_MAX, XATTR_SIZE_MAX
}

// CopyTree copies everything below source into the empty directory target, and source's own
// metadata onto it: types, modes, owners, times, extended attributes, hard links. Submounts are
// not entered. Symlinks are copied, never followed.
func CopyTree(ctx context.Context, source, target *os.File, o CopyOptions) error {
	c := &treeCopy{CopyOptions: o, ctx: ctx, top: target, links: make(map[inode]string)}
	var stat unix.Stat_t
	if err := unix.Fstat(int(source.Fd()), &stat); err != nil {
		return err
	}
	if err := c.entries(source, target, "", stat.Dev, 0); err != nil {
		return err
	}
	return c.metadata(procName(source, "."), procName(target, "."), &stat)
}

func (c *treeCopy) entries(source, target *os.File, below string, dev uint64, depth int) error {
	if depth > copyDepth {
		return fmt.Errorf("%s: directories are nested more than %d deep", below, copyDepth)
	}
	names, err := source.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := c.entry(source, target, name, path.Join(below, name), dev, depth); err != nil {
			return fmt.Errorf("%s: %w", path.Join(below, name), err)
		}
	}
	return nil
}

func (c *treeCopy) entry(source, target *os.File, name, below string, dev uint64, depth int) error {
	var stat unix.Stat_t
	if err := unix.Fstatat(int(source.Fd()), name, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	kind := stat.Mode & unix.S_IFMT
	id := inode{stat.Dev, stat.Ino}
	if kind != unix.S_IFDIR && stat.Nlink > 1 {
		if first, ok := c.links[id]; ok {
			return unix.Linkat(int(c.top.Fd()), first, int(target.Fd()), name, 0)
		}
		c.links[id] = below
	}
	var err error
	switch kind {
	case unix.S_IFDIR:
		err = c.directory(source, target, name, below, dev, depth)
	case unix.S_IFREG:
		err = c.file(source, target, name)
		if c.Damaged != nil && errors.Is(err, unix.EIO) {
			c.Damaged(below, err)
			delete(c.links, id) // each of its names gets a symlink of its own
			return leaveLoop(target, name)
		}
	case unix.S_IFLNK:
		var link string
		if link, err = os.Readlink(procName(source, name)); err == nil {
			err = unix.Symlinkat(link, int(target.Fd()), name)
		}
	default:
		err = unix.Mknodat(int(target.Fd()), name, kind|0o600, int(stat.Rdev))
	}
	if err != nil {
		return err
	}
	return c.metadata(procName(source, name), procName(target, name), &stat)
}

func (c *treeCopy) directory(source, target *os.File, name, below string, dev uint64, depth int) error {
	if err := unix.Mkdirat(int(target.Fd()), name, 0o700); err != nil {
		return err
	}
	to, err := openDirAt(target, name)
	if err != nil {
		return err
	}
	defer to.Close()
	from, err := openDirAt(source, name)
	if errors.Is(err, unix.EXDEV) {
		return nil // a mount point: the copy gets the bare directory
	}
	if err != nil {
		return err
	}
	defer from.Close()
	return c.entries(from, to, below, dev, depth+1)
}

func (c *treeCopy) file(source, target *os.File, name string) error {
	fd, err := unix.Openat(int(source.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	from := os.NewFile(uintptr(fd), name)
	defer from.Close()
	fd, err = unix.Openat(int(target.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	to := os.NewFile(uintptr(fd), name)
	// Not by way of the files' own ReadFrom and WriteTo: those ask the kernel to copy between file
	// systems, which it refuses, for each file anew.
	_, err = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, c.value[:])
	return errors.Join(err, to.Close())
}

// leaveLoop puts a symlink to itself in the place of name, whether or not that is there.
func leaveLoop(target *os.File, name string) error {
	if err := unix.Unlinkat(int(target.Fd()), name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return unix.Symlinkat(name, int(target.Fd()), name)
}

// metadata sets the owner first, since that clears set-user-ID bits and capabilities, and the
// times last.
func (c *treeCopy) metadata(from, to string, stat *unix.Stat_t) error {
	if err := os.Lchown(to, int(stat.Uid), int(stat.Gid)); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Fchmodat(unix.AT_FDCWD, to, stat.Mode&0o7777, 0); err != nil {
			return fmt.Errorf("set the mode: %w", err)
		}
	}
	if err := c.xattrs(from, to); err != nil {
		return err
	}
	times := []unix.Timespec{stat.Atim, stat.Mtim}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, to, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set the times: %w", err)
	}
	return nil
}

func (c *treeCopy) xattrs(from, to string) error {
	n, err := unix.Llistxattr(from, c.list[:])
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list extended attributes: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(c.list[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		n, err := unix.Lgetxattr(from, name, c.value[:])
		if err != nil {
			return fmt.Errorf("read the extended attribute %s: %w", name, err)
		}
		if err := unix.Lsetxattr(to, name, c.value[:n], 0); err != nil {
			return fmt.Errorf("set the extended attribute %s: %w", name, err)
		}
	}
	return nil
}

// procName names an entry of an open directory, for calls that take a path only. The entry itself
// is not followed by the calls used here, so that a symlink is never gone through.
func procName(dir *os.File, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + name
}

// openDirAt opens a directory of dir for reading: not through a symlink (ELOOP), not on another
// mount (EXDEV).
func openDirAt(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat2(int(dir.Fd()), name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
