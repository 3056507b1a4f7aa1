package aftercare

import (
	"bytes"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// identity is a file as stat(2) tells it from others.
type identity struct{ dev, inode uint64 }

// comparison tells files that were replaced by others from those that only lie in an older union.
type comparison struct {
	view View
	// budget is how many bytes may still be compared.
	budget int64
	known  map[identity]bool
}

// stale reports whether a file is one of an older union of ours, and what its path leads to now is another; path is the one
// in the root.
func (c *comparison) stale(r ref) (path string, stale bool) {
	path, inside := c.view.inside(r.path)
	switch {
	case r.attached && !r.ours, r.attached && (!inside || r.dev == c.view.at(path)):
		return "", false
	case !r.attached:
		var fs unix.Statfs_t
		if err := unix.Statfs(r.link, &fs); err != nil || fs.Type != unix.OVERLAYFS_SUPER_MAGIC {
			return "", false
		}
		path = c.find(r.path)
	}
	if r.how == AsDirectory {
		return path, true
	}
	var old unix.Stat_t
	if err := unix.Stat(r.link, &old); err != nil {
		return "", false // it has ended
	}
	id := identity{old.Dev, old.Ino}
	differs, known := c.known[id]
	if !known {
		differs = c.differs(r.link, path)
		c.known[id] = differs
	}
	return path, differs
}

// find returns where a path that begins at the root of a mount without a place is likely to have been: in the directory of "/"
// that has such a path.
func (c *comparison) find(path string) string {
	names := slices.Sorted(maps.Keys(c.view.Top))
	// Most of a system is in /usr.
	slices.SortStableFunc(names, func(a, b string) int {
		switch {
		case a == "usr" && b != "usr":
			return -1
		case b == "usr" && a != "usr":
			return 1
		}
		return 0
	})
	for _, name := range names {
		there := filepath.Join("/", name, path)
		if _, err := os.Lstat(filepath.Join(c.view.Root, there)); err == nil {
			return there
		}
	}
	return path
}

// differs compares a file with what a path leads to, byte by byte. What can't be compared differs.
func (c *comparison) differs(link, path string) bool {
	a, sizeA, err := openRegular(link)
	if err != nil {
		return true
	}
	defer a.Close()
	b, sizeB, err := openRegular(filepath.Join(c.view.Root, path))
	if err != nil {
		return true
	}
	defer b.Close()
	if sizeA != sizeB {
		return true
	}
	if c.budget -= sizeA; c.budget < 0 {
		return modified(a) != modified(b)
	}
	return !sameBytes(a, b)
}

func modified(f *os.File) int64 {
	info, err := f.Stat()
	if err != nil {
		return 0
	}
	return info.ModTime().UnixNano()
}

// openRegular opens a regular file and nothing else: to open a pipe or a device would wait, or do something.
func openRegular(path string) (*os.File, int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, os.ErrInvalid
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	return f, info.Size(), err
}

func sameBytes(a, b io.Reader) bool {
	const chunk = 256 << 10
	x, y := make([]byte, chunk), make([]byte, chunk)
	for {
		n, errA := io.ReadFull(a, x)
		m, errB := io.ReadFull(b, y)
		if n != m || !bytes.Equal(x[:n], y[:m]) {
			return false
		}
		if errA != nil || errB != nil {
			return isEnd(errA) && isEnd(errB)
		}
	}
}

func isEnd(err error) bool { return err == io.EOF || err == io.ErrUnexpectedEOF } //nolint:errorlint // io.ReadFull returns them bare
