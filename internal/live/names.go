package live

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/rootfs"
)

// mark is on what was put into the upper's root for a root image and by nobody: the root digest of
// the union at "/" is its value.
const mark = rootfs.LiveMark

// The overlay's xattrs of a directory (Documentation/filesystems/overlayfs.rst).
const (
	overlayPrefix = "trusted.overlay."
	opaque        = overlayPrefix + "opaque"
)

// directory sees to it that a top-level directory is there to be mounted on, and that it is in the
// upper: the union that is made next would not notice if it came there later. What is in the upper
// gets the attributes of the new image's directory, unless somebody has given it others.
func (w *work) directory(c Change) error {
	info, err := lstat(w.root, c.Name)
	fresh := errors.Is(err, unix.ENOENT)
	switch {
	case fresh && c.To.Kind == Absent:
		return nil
	case fresh:
		if err := w.makeDirectory(c); err != nil {
			return err
		}
	case err != nil:
		return err
	case info.Mode&unix.S_IFMT != unix.S_IFDIR:
		return notDirectory(c.Name)
	}
	if _, err := lstat(w.upper, c.Name); errors.Is(err, unix.ENOENT) {
		// Any change has the overlay copy the directory up, one to the mode that it has, too.
		err := w.step(c.Name+":copy-up", func() error { return unix.Fchmodat(int(w.root.Fd()), c.Name, info.Mode&0o7777, 0) })
		if err != nil {
			return fmt.Errorf("copy /%s up: %w", c.Name, err)
		}
	} else if err != nil {
		return err
	}
	if c.From.Kind == Absent && w.undoing && !fresh {
		return nil // it was there before the change that is undone, and is as it was
	}
	return w.step(c.Name+":attributes", func() error { return w.attributes(c, fresh) })
}

// copyUpTo has the directories above a place in an old tree come into the upper, before the new union looks at them: it would not
// see them come there later, nor anything that is made in them.
func (w *work) copyUpTo(r *replacement, inside string) error {
	parts := strings.Split(inside, "/")
	for i := 1; i < len(parts); i++ {
		name := strings.Join(parts[:i], "/")
		if _, err := lstat(w.upper, r.change.Name+"/"+name); err == nil && !etcLayer(r.stack) {
			continue
		}
		info, err := lstat(r.old, name)
		if err != nil {
			return err
		}
		err = w.step(r.change.Name+":copy-up-inside", func() error {
			err := unix.Fchmodat(int(r.old.Fd()), name, info.Mode&0o7777, 0)
			if errors.Is(err, unix.EROFS) {
				return nil // a tree that somebody made read-only: nobody makes anything in it either
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("copy /%s/%s up: %w", r.change.Name, name, err)
		}
	}
	return nil
}

// makeDirectory makes a directory in "/" that the union there has no image's for.
func (w *work) makeDirectory(c Change) error {
	err := w.step(c.Name+":mkdir", func() error {
		if err := unix.Mkdirat(int(w.root.Fd()), c.Name, 0o755); err != nil {
			return err
		}
		return unix.Lsetxattr(w.inUpper(c.Name), mark, []byte(w.base.Digest.String()), 0)
	})
	if err != nil {
		return fmt.Errorf("make /%s: %w", c.Name, err)
	}
	return nil
}

// attributes gives a directory of the upper those of the new image's, unless somebody has given it
// others. One that the old image didn't have, and that was made here before, keeps its own, but doesn't
// hide the image's.
func (w *work) attributes(c Change, fresh bool) error {
	path := w.inUpper(c.Name)
	if c.From.Kind == Absent {
		if err := unix.Lremovexattr(path, opaque); err != nil && !errors.Is(err, unix.ENODATA) {
			return &os.PathError{Op: "remove the mark opaque of", Path: path, Err: err}
		}
	}
	if c.To.Kind != Directory {
		return nil
	}
	there, err := attributesOf(path)
	if err != nil {
		return err
	}
	if c.From.Kind == Directory && !there.sameAttributes(c.From) || c.From.Kind == Absent && !fresh && !w.made(c.Name) {
		return nil
	}
	// What we made has the mode and the time of now. They go first: chown takes set-user-ID bits away.
	err = errors.Join(unix.Lchown(path, int(c.To.UID), int(c.To.GID)), unix.Chmod(path, uint32(c.To.Mode)), replaceXattrs(path, there, c.To))
	if err != nil {
		return fmt.Errorf("give /%s the attributes of the new root image: %w", c.Name, err)
	}
	if c.From.Kind == Absent || there.Mtime == c.From.Mtime {
		times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: c.To.Mtime.Sec, Nsec: int64(c.To.Mtime.Nsec)}}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("give /%s the time of the new root image: %w", c.Name, err)
		}
	}
	return nil
}

// link makes, replaces or removes a link in "/". One that somebody has changed here stays.
func (w *work) link(c Change) error {
	target, err := readlink(w.root, c.Name)
	there := err == nil
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return &os.PathError{Op: "read the link", Path: "/" + c.Name, Err: err}
	}
	absent := errors.Is(err, unix.ENOENT)
	switch {
	case there && c.To.Kind == Link && target == c.To.Target, absent && c.To.Kind == Absent:
		return nil
	case there && (c.From.Kind != Link || target != c.From.Target), !there && !absent:
		w.spec.Remark(fmt.Sprintf("/%s was changed here: it stays", c.Name), "")
		return nil
	case absent && c.From.Kind == Link:
		w.spec.Remark(fmt.Sprintf("/%s was removed here: it stays away", c.Name), "")
		return nil
	case c.To.Kind == Absent:
		return w.step(c.Name+":unlink", func() error { return w.unlink(c.Name) })
	default:
		return w.step(c.Name+":link", func() error { return w.relink(c) })
	}
}

// relink goes by a temporary name, so that the link is there at each moment.
func (w *work) relink(c Change) error {
	temp := tempName(c.To.Target)
	if err := unix.Symlinkat(c.To.Target, int(w.root.Fd()), temp); err != nil {
		return fmt.Errorf("make the link /%s: %w", c.Name, err)
	}
	err := w.markTemp(c.Name, temp)
	if err == nil {
		err = w.step(c.Name+":rename", func() error { return unix.Renameat(int(w.root.Fd()), temp, int(w.root.Fd()), c.Name) })
	}
	if err != nil {
		return errors.Join(fmt.Errorf("make the link /%s: %w", c.Name, err), unix.Unlinkat(int(w.root.Fd()), temp, 0))
	}
	return nil
}

// unlink removes a link. Where the image of the union at "/" has it, the overlay puts a whiteout in
// its place; a marked one takes that one's place, since the overlay has one inode for all of its own.
func (w *work) unlink(name string) error {
	if err := unix.Unlinkat(int(w.root.Fd()), name, 0); err != nil {
		return fmt.Errorf("remove the link /%s: %w", name, err)
	}
	info, err := lstat(w.upper, name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode&unix.S_IFMT != unix.S_IFCHR || info.Rdev != 0 {
		return nil
	}
	temp := tempName(whiteout)
	err = unix.Mknodat(int(w.upper.Fd()), temp, unix.S_IFCHR, 0)
	if err == nil {
		err = w.markTemp(name, temp)
	}
	if err == nil {
		err = w.step(name+":rename", func() error { return unix.Renameat(int(w.upper.Fd()), temp, int(w.upper.Fd()), name) })
	}
	if err != nil {
		return errors.Join(fmt.Errorf("mark the removed link /%s: %w", name, err), unix.Unlinkat(int(w.upper.Fd()), temp, 0))
	}
	return nil
}

func (w *work) markTemp(name, temp string) error {
	return w.step(name+":mark", func() error { return unix.Lsetxattr(w.inUpper(temp), mark, []byte(w.base.Digest.String()), 0) })
}

// made reports whether a top-level directory was made by a live change under the union that is at "/"
// now, whose image therefore has none.
func (w *work) made(name string) bool {
	value := make([]byte, 128)
	n, err := unix.Lgetxattr(w.inUpper(name), mark, value)
	return err == nil && string(value[:n]) == w.base.Digest.String()
}

// spare reports whether a top-level directory was made so, and nobody put anything there.
func (w *work) spare(name string) bool {
	dir, err := openDirectory(w.inUpper(name))
	if err != nil {
		return false
	}
	defer dir.Close()
	_, err = dir.Readdirnames(1)
	return errors.Is(err, io.EOF) && w.made(name)
}

// inUpper is the path of a name in the upper's root.
func (w *work) inUpper(name string) string { return filepath.Join(w.upper.Name(), name) }

func lstat(dir *os.File, name string) (unix.Stat_t, error) {
	var stat unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), name, &stat, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT)
	runtime.KeepAlive(dir)
	if err != nil {
		err = &os.PathError{Op: "look at", Path: filepath.Join(dir.Name(), name), Err: err}
	}
	return stat, err
}

func readlink(dir *os.File, name string) (string, error) {
	target := make([]byte, 4096)
	n, err := unix.Readlinkat(int(dir.Fd()), name, target)
	runtime.KeepAlive(dir)
	if err != nil {
		return "", err
	}
	return string(target[:n]), nil
}
