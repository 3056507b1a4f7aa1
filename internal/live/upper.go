package live

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
)

// workPrefix begins the names of work directories, which lie beside the upper: as package rootfs
// calls them on the disk, and removes them at the next boot.
const workPrefix = "work-"

// openUpper opens the upper directory of the overlay whose root is open. The mount table has its path
// from when the overlay was made, perhaps in an initramfs: the first of the candidates that is proven
// to be the upper is taken.
func openUpper(overlay *os.File, candidates ...string) (*os.File, error) {
	tried := make([]string, 0, len(candidates))
	for _, path := range candidates {
		if path == "" {
			continue
		}
		tried = append(tried, path)
		f, err := openDirectory(path)
		if err != nil {
			continue
		}
		if isUpper(overlay, f) {
			return f, nil
		}
		f.Close()
	}
	return nil, fault.New(fault.Refuse, fault.Mount, "let the change be made at the next boot",
		"the writable layer of %s can't be reached at %s", overlay.Name(), strings.Join(tried, ", "))
}

// isUpper reports whether dir is the upper of an overlay by its root: the overlay shows the attributes
// of its upper's root, down to the nanosecond of its last change, and no other directory has the same
// ones. Somebody may be changing it, so it looks more than once.
func isUpper(overlay, dir *os.File) bool {
	for range 16 {
		var a, b unix.Statx_t
		const mask = unix.STATX_MODE | unix.STATX_UID | unix.STATX_GID | unix.STATX_MTIME | unix.STATX_CTIME
		err := errors.Join(
			unix.Statx(int(dir.Fd()), "", unix.AT_EMPTY_PATH, mask, &a),
			unix.Statx(int(overlay.Fd()), "", unix.AT_EMPTY_PATH, mask, &b),
		)
		runtime.KeepAlive(dir)
		runtime.KeepAlive(overlay)
		if err != nil {
			return false
		}
		if a.Mode == b.Mode && a.Uid == b.Uid && a.Gid == b.Gid && a.Mtime == b.Mtime && a.Ctime == b.Ctime {
			return true
		}
	}
	return false
}

// makeWork makes a work directory beside an upper.
func (w *work) makeWork(upper *os.File) (*os.File, error) {
	path := filepath.Join(filepath.Dir(upper.Name()), workPrefix+strings.ToLower(rand.Text()))
	if err := os.Mkdir(path, 0o700); err != nil {
		return nil, fmt.Errorf("make a work directory: %w", err)
	}
	w.works = append(w.works, path)
	return openDirectory(path)
}

// openDirectory opens a directory, not through a symlink at its end.
func openDirectory(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}
