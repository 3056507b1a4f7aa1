package composefs

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/tree"
)

// xattrs reads the attributes of a directory's entry, or of the directory itself, called ".".
func (s *scanner) xattrs(dir *os.File, name string, n *tree.Node) error {
	// There are no system calls for attributes relative to a directory before Linux 6.13.
	path := "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + name
	list, err := whole(func(buf []byte) (int, error) { return unix.Llistxattr(path, buf) })
	if err != nil {
		return err
	}
	for key := range bytes.SplitSeq(list, []byte{0}) {
		name := string(key)
		if name == "" || s.opts.UserXattrs && !strings.HasPrefix(name, "user.") {
			continue
		}
		value, err := whole(func(buf []byte) (int, error) { return unix.Lgetxattr(path, name, buf) })
		if err != nil {
			return err
		}
		n.SetXattr(name, value)
	}
	return nil
}

// whole calls read with a buffer that is large enough, and returns what it read.
func whole(read func([]byte) (int, error)) ([]byte, error) {
	var small [256]byte
	buf := small[:]
	n, err := read(buf)
	if errors.Is(err, unix.ERANGE) {
		// Linux bounds a list and a value at 64 KiB each (XATTR_LIST_MAX, XATTR_SIZE_MAX).
		buf = make([]byte, 64<<10)
		n, err = read(buf)
	}
	if err != nil {
		return nil, err
	}
	return bytes.Clone(buf[:n]), nil
}
