package retain

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount"
)

// tableMax bounds the mount table of one namespace: the kernel's own bound is 100,000 mounts
// (/proc/sys/fs/mount-max), each a line of some hundred bytes.
const tableMax = 64 << 20

// MountedRoots returns the root digests of the roots that are mounted in any mount namespace: a service with one of its own
// goes on in the root that was there when it began. proc is where procfs is mounted. A process that has ended meanwhile,
// or that this one may not look at, is passed over; where none can be seen that is an error. A namespace that only a file or
// one thread of a process holds isn't seen.
func MountedRoots(proc string) (map[fsverity.Digest]struct{}, error) {
	processes, err := os.ReadDir(proc)
	if err != nil {
		return nil, fmt.Errorf("find out which roots are mounted: %w", err)
	}
	roots := make(map[fsverity.Digest]struct{})
	seen := make(map[string]bool)
	for _, p := range processes {
		if _, err := strconv.ParseUint(p.Name(), 10, 32); err != nil {
			continue
		}
		dir := filepath.Join(proc, p.Name())
		namespace, err := os.Readlink(filepath.Join(dir, "ns", "mnt"))
		if err != nil || seen[namespace] {
			continue
		}
		table, err := readTable(filepath.Join(dir, "mountinfo"))
		if ended(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("find out which roots are mounted: %w", err)
		}
		seen[namespace] = true
		for _, u := range table.Unions() {
			roots[u.Digest] = struct{}{}
		}
	}
	if len(seen) == 0 {
		return nil, fmt.Errorf("find out which roots are mounted: no process is seen in %s", proc)
	}
	return roots, nil
}

// ended says that the process is gone, has given up its namespaces on its way out, or is another user's.
func ended(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) || errors.Is(err, fs.ErrPermission)
}

func readTable(path string) (mount.Table, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return mount.ParseTable(io.LimitReader(f, tableMax))
}
