package delta

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
)

// ForgetOrigins removes the marks by which the kernel takes a file of the upper for one of the image below it,
// and returns how many there were. They are right over the image only that the file was copied up from (see the package's comment). Over that
// one, without its mark a file has another inode number, once the kernel has forgotten the one that it had.
//
// A file that is copied up through the old union after that gets a mark again; it does harm until it is
// removed. Directories keep theirs: the kernel finds what is below them by path, and only lists a directory's
// names without the whiteouts where it has one.
func ForgetOrigins(ctx context.Context, upper *durable.Dir) (int, error) {
	n := 0
	w := walker{ctx: ctx, skip: func(string, string) {}}
	w.limits.fill()
	w.visit = func(f found) (bool, error) {
		switch f.stat.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			return true, nil
		case unix.S_IFCHR:
			if f.stat.Rdev == 0 {
				return false, nil
			}
		}
		path := f.procPath()
		if _, err := unix.Lgetxattr(path, markOrigin, nil); err != nil {
			return false, nil //nolint:nilerr // none, or gone
		}
		err := upper.Step("settle-origin:forget", func() error { return unix.Lremovexattr(path, markOrigin) })
		if errors.Is(err, unix.ENODATA) || gone(err) {
			return false, nil
		}
		n++
		return false, upper.Diagnose(err)
	}
	if err := w.walk(upper.File()); err != nil {
		return n, fmt.Errorf("forget the origins of the writable layer's files: %w", err)
	}
	return n, nil
}
