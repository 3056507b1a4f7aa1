package delta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// walker goes through an upper, directories before what is in them. It stays in one file system and follows no link.
type walker struct {
	ctx    context.Context
	limits Limits
	// visit gets each name; true has a directory entered.
	visit func(found) (bool, error)
	// skip is told of what is too deep.
	skip func(path, why string)
	n    int
}

// found is a name in an open directory.
type found struct {
	dir  *os.File
	name string
	path string
	stat unix.Stat_t
}

// procPath names the entry for calls that take a path; it follows no link but those of /proc.
func (f found) procPath() string { return procPath(f.dir, f.name) }

// made is when the entry came into being, or, where the file system doesn't know, when it was last changed.
func (f found) made() time.Time {
	var x unix.Statx_t
	err := unix.Statx(int(f.dir.Fd()), f.name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_BTIME, &x)
	runtime.KeepAlive(f.dir)
	if err != nil || x.Mask&unix.STATX_BTIME == 0 {
		return time.Unix(f.stat.Ctim.Unix())
	}
	return time.Unix(x.Btime.Sec, int64(x.Btime.Nsec))
}

func procPath(dir *os.File, name string) string { return fdPath(dir) + "/" + name }

// fdPath names what f is open on, for calls that take a path.
func fdPath(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

func (w *walker) walk(top *os.File) error {
	// The caller's descriptor has a position of its own.
	dir, err := openDirAt(top, ".")
	if err != nil {
		return err
	}
	defer dir.Close()
	return w.directory(dir, "", 0)
}

// namesAtOnce is how many names of a directory are held before they are counted against the limit.
const namesAtOnce = 4096

func (w *walker) directory(dir *os.File, path string, depth int) error {
	var names []string
	for {
		some, err := dir.Readdirnames(namesAtOnce)
		names = append(names, some...)
		if errors.Is(err, io.EOF) || gone(err) {
			break
		}
		if err != nil {
			return err
		}
		if w.n+len(names) > w.limits.Entries {
			return errTooMany
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		if err := w.name(dir, name, path+"/"+name, depth); err != nil {
			return err
		}
	}
	return nil
}

// errTooMany says that there are more names than the limit.
var errTooMany = errors.New("too many files")

func (w *walker) name(dir *os.File, name, path string, depth int) error {
	f := found{dir: dir, name: name, path: path}
	if err := unix.Fstatat(int(dir.Fd()), name, &f.stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if gone(err) {
			return nil
		}
		return fmt.Errorf("look at %s: %w", path, err)
	}
	if w.n++; w.n > w.limits.Entries {
		return errTooMany
	}
	enter, err := w.visit(f)
	if err != nil || !enter {
		return err
	}
	if depth+1 >= w.limits.Depth {
		w.skip(path, fmt.Sprintf("directories nest deeper than %d", w.limits.Depth))
		return nil
	}
	sub, err := openDirAt(dir, name)
	switch {
	case gone(err):
		return nil
	case errors.Is(err, unix.EXDEV):
		w.skip(path, "something is mounted there")
		return nil
	case err != nil:
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer sub.Close()
	return w.directory(sub, path, depth+1)
}

// gone reports whether err says that a name isn't there any more, or isn't what it was.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ESTALE)
}

// openAt opens a path below dir, through no link and into no other mount.
func openAt(dir *os.File, path string, flags uint64) (*os.File, error) {
	fd, err := unix.Openat2(int(dir.Fd()), path, &unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
	runtime.KeepAlive(dir)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func openDirAt(dir *os.File, path string) (*os.File, error) {
	return openAt(dir, path, unix.O_RDONLY|unix.O_DIRECTORY)
}

func readlinkAt(dir *os.File, name string) (string, error) {
	buf := make([]byte, markMax)
	n, err := unix.Readlinkat(int(dir.Fd()), name, buf)
	runtime.KeepAlive(dir)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}
