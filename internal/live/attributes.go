package live

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/tree"
)

// attributesOf reads a directory of the upper as an Entry: without what the overlay and this package
// note there.
func attributesOf(path string) (Entry, error) {
	var stat unix.Stat_t
	if err := unix.Lstat(path, &stat); err != nil {
		return Entry{}, &os.PathError{Op: "look at", Path: path, Err: err}
	}
	e := Entry{
		Kind: Directory, Mode: uint16(stat.Mode & 0o7777), UID: stat.Uid, GID: stat.Gid,
		Mtime: tree.Time{Sec: stat.Mtim.Sec, Nsec: uint32(stat.Mtim.Nsec)},
	}
	names, err := listXattrs(path)
	if err != nil {
		return Entry{}, err
	}
	for _, name := range names {
		if notes(name) {
			continue
		}
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return Entry{}, fmt.Errorf("read the attribute %s of %s: %w", name, path, err)
		}
		e.Xattrs = append(e.Xattrs, tree.Xattr{Name: name, Value: bytes.Clone(value[:n])})
	}
	slices.SortFunc(e.Xattrs, func(a, b tree.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return e, nil
}

// notes reports whether an xattr is about the layer and not about the directory.
func notes(name string) bool { return name == mark || strings.HasPrefix(name, overlayPrefix) }

func listXattrs(path string) ([]string, error) {
	list := make([]byte, 64<<10) // XATTR_LIST_MAX
	n, err := unix.Llistxattr(path, list)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the attributes of %s: %w", path, err)
	}
	return strings.FieldsFunc(string(list[:n]), func(r rune) bool { return r == 0 }), nil
}

// replaceXattrs gives a directory the xattrs of want instead of those that it has.
func replaceXattrs(path string, have, want Entry) error {
	for _, x := range have.Xattrs {
		if !slices.ContainsFunc(want.Xattrs, func(y tree.Xattr) bool { return x.Name == y.Name }) {
			if err := unix.Lremovexattr(path, x.Name); err != nil {
				return fmt.Errorf("remove the attribute %s: %w", x.Name, err)
			}
		}
	}
	for _, x := range want.Xattrs {
		if notes(x.Name) {
			continue
		}
		if err := unix.Lsetxattr(path, x.Name, x.Value, 0); err != nil {
			return fmt.Errorf("set the attribute %s: %w", x.Name, err)
		}
	}
	return nil
}
