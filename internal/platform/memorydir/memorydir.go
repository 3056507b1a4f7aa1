// Package memorydir has tests keep their files in memory, where the machine has room for that: most of what a test of a platform waits for
// is the disk, which is asked to keep what nobody will read again.
//
// It promises nothing to production code, which must not import it; and that tests do the same with a disk, if more slowly: what they make
// durable they sync all the same, and nothing that they look at is a matter of the file system's kind.
package memorydir

import (
	"os"

	"golang.org/x/sys/unix"
)

const (
	// place is where Linux has a file system in memory for everyone.
	place = "/dev/shm"
	// enough is how much room there must be, in bytes. In containers there is often less, and a database server takes some.
	enough = 2 << 30
	// tmpfs is that file system's number (statfs(2)).
	tmpfs = 0x01021994
)

// Use has the temporary files of this program, and of those that it starts, in memory, unless the environment has a place for them, or
// there isn't enough room. It is for TestMain.
func Use() error {
	if os.Getenv("TMPDIR") != "" {
		return nil
	}
	var has unix.Statfs_t
	if err := unix.Statfs(place, &has); err != nil || has.Type != tmpfs || has.Bavail*uint64(has.Bsize) < enough {
		return nil //nolint:nilerr // a system that hasn't such a place has a disk
	}
	return os.Setenv("TMPDIR", place)
}
