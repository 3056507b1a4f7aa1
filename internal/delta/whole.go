package delta

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// whole has the kernel copy up all that a renamed directory shows, and makes it opaque.
func (a *liveActor) whole(path string) error {
	top, rest, err := a.dir(path, true)
	if err != nil {
		return err
	}
	dir, err := openDirAt(top, rest)
	switch {
	case gone(err):
		return nil
	case errors.Is(err, unix.EXDEV):
		return errTrouble{errors.New("something is mounted over it")}
	case err != nil:
		return err
	}
	defer dir.Close()
	if err := a.wholeDir(dir, path, 0); err != nil {
		return err
	}
	return a.markWhole()
}

func (a *liveActor) wholeDir(dir *os.File, path string, depth int) error {
	var l Limits
	if l.fill(); depth >= l.Depth {
		return errTrouble{fmt.Errorf("directories nest deeper than %d in it", l.Depth)}
	}
	names, err := dir.Readdirnames(-1)
	if err != nil && !errors.Is(err, io.EOF) {
		return errTrouble{fmt.Errorf("%s can't be listed: %w", path, err)}
	}
	slices.Sort(names)
	for _, name := range names {
		if err := a.ctx.Err(); err != nil {
			return err
		}
		if err := a.wholeName(dir, name, path+"/"+name, depth); err != nil {
			return err
		}
	}
	h, err := a.look(path)
	if err == nil && h.redirect {
		a.marked = append(a.marked, path)
	}
	return err
}

func (a *liveActor) wholeName(dir *os.File, name, path string, depth int) error {
	var s unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &s, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if gone(err) {
			return nil
		}
		return errTrouble{fmt.Errorf("%s: %w", path, err)}
	}
	h, err := a.look(path)
	if err != nil {
		return err
	}
	if s.Mode&unix.S_IFMT == unix.S_IFREG {
		if h.there && !h.metacopy {
			return nil
		}
		return named(path, a.copyUp(dir, name, path))
	}
	if !h.there {
		if err := a.touch(dir, name); err != nil && !gone(err) {
			return named(path, err)
		}
	}
	if s.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	sub, err := openDirAt(dir, name)
	switch {
	case gone(err):
		return nil
	case errors.Is(err, unix.EXDEV):
		return errTrouble{fmt.Errorf("something is mounted over %s", path)}
	case err != nil:
		return err
	}
	defer sub.Close()
	return a.wholeDir(sub, path, depth+1)
}

// named says which file in a directory an error is about.
func named(path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", path, err)
}
