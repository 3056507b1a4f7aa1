package delta

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
)

// held is a name in the upper, looked at again.
type held struct {
	there, metacopy, redirect bool
}

// actor is what the two ways to act have in common.
type actor struct {
	ctx      context.Context
	upper    *durable.Dir
	troubles []Trouble
	// marked are the renamed directories of a step that hold all that they show, the deepest first.
	marked []string
}

// below is a path without its leading slash, as calls on an open directory take it.
func below(path string) string {
	if rest := strings.TrimPrefix(path, "/"); rest != "" {
		return rest
	}
	return "."
}

// errTrouble marks what is one path's own trouble, and not the disk's or the caller's.
type errTrouble struct{ error }

func (e errTrouble) Unwrap() error { return e.error }

// settle turns the outcome of one step into what goes on: nothing, a trouble, or an error that ends the act.
func (a *actor) settle(path string, err error) error {
	if err == nil {
		return nil
	}
	if ended := a.ctx.Err(); ended != nil {
		return ended
	}
	if _, ok := errors.AsType[errTrouble](err); ok {
		a.troubles = append(a.troubles, Trouble{path, err.Error()})
		return nil
	}
	return fmt.Errorf("settle %s: %w", path, err)
}

// look looks at a path of the upper again.
func (a *actor) look(path string) (held, error) {
	f, err := openAt(a.upper.File(), below(path), unix.O_PATH)
	if gone(err) {
		return held{}, nil
	}
	if err != nil {
		return held{}, err
	}
	defer f.Close()
	h := held{there: true}
	h.metacopy, err = hasMark(f, markMetacopy)
	if err == nil {
		h.redirect, err = hasMark(f, markRedirect)
	}
	return h, err
}

// hasMark reports whether an entry, which may be open as a place only, has a mark.
func hasMark(f *os.File, name string) (bool, error) {
	_, err := unix.Getxattr(fdPath(f), name, nil)
	runtime.KeepAlive(f)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return false, nil
	}
	return err == nil, err
}

// fill writes a metacopy's content into the upper's own file, which keeps its names, and takes the mark away. Until then
// the kernel doesn't look at that content. check is asked before the mark goes.
func (a *actor) fill(path string, content io.Reader, check func() error) error {
	f, err := openAt(a.upper.File(), below(path), unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	var before unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &before); err != nil {
		return err
	}
	capability, err := getMark(f, capabilityName)
	if err != nil {
		return err
	}
	err = a.upper.Step("settle-content:fill", func() error { return a.copy(f, content) })
	if capability != nil {
		// The kernel drops it at the first write.
		err = errors.Join(err, unix.Fsetxattr(int(f.Fd()), capabilityName, capability, 0))
	}
	err = errors.Join(err, setTimes(fdPath(f), before.Atim, before.Mtim))
	if err == nil && check != nil {
		err = check()
	}
	if err == nil {
		err = a.upper.Step("settle-content:sync", f.Sync)
	}
	if err != nil {
		return a.upper.Diagnose(err)
	}
	return a.upper.Diagnose(a.upper.Step("settle-content:mark", func() error { return unix.Fremovexattr(int(f.Fd()), markMetacopy) }))
}

const capabilityName = "security.capability"

// getMark returns an attribute's value, nil where there is none.
func getMark(f *os.File, name string) ([]byte, error) {
	value := make([]byte, markMax)
	n, err := unix.Fgetxattr(int(f.Fd()), name, value)
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return value[:n], nil
}

func setTimes(path string, atime, mtime unix.Timespec) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{atime, mtime}, 0)
}

// copy copies a file's content in parts, so that it ends with the context.
func (a *actor) copy(to io.Writer, from io.Reader) error {
	for {
		if err := a.ctx.Err(); err != nil {
			return err
		}
		_, err := io.CopyN(to, from, 4<<20)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// markWhole makes the renamed directories of a step opaque, once what they hold is on the disk.
func (a *actor) markWhole() error {
	defer func() { a.marked = nil }()
	if err := a.upper.SyncFS("settle-whole"); err != nil {
		return err
	}
	for _, path := range a.marked {
		dir, err := openDirAt(a.upper.File(), below(path))
		if gone(err) {
			continue
		}
		if err == nil {
			err = errors.Join(a.markDir(dir), dir.Close())
		}
		if err != nil {
			return fmt.Errorf("mark %s: %w", path, err)
		}
	}
	return nil
}

func (a *actor) markDir(dir *os.File) error {
	err := a.upper.Step("settle-whole:opaque", func() error { return unix.Fsetxattr(int(dir.Fd()), markOpaque, []byte("y"), 0) })
	if err != nil {
		return a.upper.Diagnose(err)
	}
	return a.removeMark(dir, markRedirect, "settle-whole:redirect")
}

func (a *actor) removeMark(f *os.File, name, op string) error {
	err := a.upper.Step(op, func() error { return unix.Fremovexattr(int(f.Fd()), name) })
	if errors.Is(err, unix.ENODATA) {
		return nil
	}
	return a.upper.Diagnose(err)
}

// merge has a directory that was made here show what the image has at its path. The image that it was used over has
// nothing there.
func (a *actor) merge(path string) error {
	dir, err := openDirAt(a.upper.File(), below(path))
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return a.removeMark(dir, markOpaque, "settle-merge:mark")
}

// hide notes that a directory hides what an image has at its path.
func (a *actor) hide(path string) error {
	dir, err := openDirAt(a.upper.File(), below(path))
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return a.upper.Diagnose(a.upper.Step("settle-hide:mark", func() error { return unix.Fsetxattr(int(dir.Fd()), markHides, []byte("y"), 0) }))
}

// finish removes the marks of origins and puts everything on the disk.
func (a *actor) finish() ([]Trouble, error) {
	if _, err := ForgetOrigins(a.ctx, a.upper); err != nil {
		return a.troubles, err
	}
	return a.troubles, a.upper.SyncFS("settle")
}
