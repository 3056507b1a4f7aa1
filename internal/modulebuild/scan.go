package modulebuild

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/layer"
	"github.com/powernode/powernode-agent/internal/tree"
)

// scanner reads a directory of this machine into a content.
type scanner struct {
	content
	// overlay says that the directory is an overlay's upper: 0:0 devices are whiteouts, and
	// trusted.overlay.* is the overlay's own.
	overlay bool
	dir     string
	device  uint64
	links   map[uint64]*tree.Node
}

// scan reads the directory dir without following symlinks. It stays on one file system.
func scan(dir string, overlay bool) (*content, error) {
	s := &scanner{
		content: content{files: make(map[*tree.Node]string)},
		overlay: overlay, dir: dir, links: make(map[uint64]*tree.Node),
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if err == nil {
			err = unix.ENOTDIR
		}
		return nil, fault.New(fault.Refuse, fault.Input, "name a directory that holds the module's files", "read the directory %s: %w", dir, err)
	}
	s.device = st.Dev
	root, err := s.node("", &st)
	if err != nil {
		return nil, err
	}
	s.root = root
	return &s.content, s.fill("", root)
}

func (s *scanner) fill(path string, dir *tree.Node) error {
	entries, err := os.ReadDir(filepath.Join(s.dir, path))
	if err != nil {
		return fmt.Errorf("read the directory: %w", err)
	}
	for _, e := range entries {
		at := e.Name()
		if path != "" {
			at = path + "/" + e.Name()
		}
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(s.dir, at), &st); err != nil {
			return fmt.Errorf("read %s: %w", at, err)
		}
		switch {
		case st.Dev != s.device:
			return fault.New(fault.Refuse, fault.Input, "unmount it, or name a directory without mounts", "read the directory %s: %s is another file system", s.dir, at)
		case st.Mode&unix.S_IFMT == unix.S_IFSOCK:
			s.skipped = append(s.skipped, at)
			continue
		case s.overlay && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0:
			s.removed = append(s.removed, at)
			continue
		}
		n, err := s.node(at, &st)
		if err != nil {
			return err
		}
		dir.SetChild(e.Name(), n)
		if n.Kind == tree.Directory {
			if err := s.fill(at, n); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *scanner) node(path string, st *unix.Stat_t) (*tree.Node, error) {
	linked := st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR
	if n := s.links[st.Ino]; linked && n != nil {
		return n, nil
	}
	n := &tree.Node{
		Mode: uint16(st.Mode & 0o7777), UID: st.Uid, GID: st.Gid,
		Mtime: tree.Time{Sec: st.Mtim.Sec, Nsec: uint32(st.Mtim.Nsec)},
	}
	full := filepath.Join(s.dir, path)
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		n.Kind = tree.Directory
	case unix.S_IFREG:
		n.Kind, n.Size = tree.Regular, uint64(st.Size)
		if n.Size > tree.InlineMax {
			s.files[n] = full
		} else if n.Inline, err = os.ReadFile(full); err == nil && uint64(len(n.Inline)) != n.Size {
			err = errors.New("it changes while it is read")
		}
	case unix.S_IFLNK:
		n.Kind, n.Mode = tree.Symlink, 0o777
		n.Target, err = os.Readlink(full)
	case unix.S_IFCHR, unix.S_IFBLK:
		n.Kind = tree.CharDevice
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			n.Kind = tree.BlockDevice
		}
		n.Rdev = uint32(st.Rdev)
	case unix.S_IFIFO:
		n.Kind = tree.FIFO
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", full, err)
	}
	if err := s.xattrs(path, full, n); err != nil {
		return nil, fmt.Errorf("read the extended attributes of %s: %w", full, err)
	}
	if linked {
		s.links[st.Ino] = n
	}
	return n, nil
}

// xattrs reads the attributes that a module may carry. SELinux labels are this machine's.
func (s *scanner) xattrs(path, full string, n *tree.Node) error {
	names, err := attribute(func(b []byte) (int, error) { return unix.Llistxattr(full, b) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		if s.overlay && name == "trusted.overlay.opaque" {
			if v, err := attribute(func(b []byte) (int, error) { return unix.Lgetxattr(full, name, b) }); err != nil {
				return err
			} else if bytes.Equal(v, []byte("y")) {
				s.opaque = append(s.opaque, path)
			}
		}
		if name == "" || name == "security.selinux" || !layer.AllowedXattr(name) {
			continue
		}
		value, err := attribute(func(b []byte) (int, error) { return unix.Lgetxattr(full, name, b) })
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		n.Xattrs = append(n.Xattrs, tree.Xattr{Name: name, Value: value})
	}
	slices.SortFunc(n.Xattrs, func(a, b tree.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// attribute calls get with a buffer that is large enough: XATTR_SIZE_MAX and XATTR_LIST_MAX are
// both 64 KiB.
func attribute(get func([]byte) (int, error)) ([]byte, error) {
	small := make([]byte, 256)
	n, err := get(small)
	if errors.Is(err, unix.ERANGE) {
		small = make([]byte, 64<<10)
		n, err = get(small)
	}
	if err != nil {
		return nil, err
	}
	return small[:n:n], nil
}

func errTooLarge(path string, limit int64) error {
	return fault.New(fault.Broken, fault.Input, "", "%s is larger than %d bytes", path, limit)
}
