package delta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/tree"
)

// Limits bound a scan. A field that is zero means the usual.
type Limits struct {
	Entries int // 1,000,000
	Depth   int // how deep directories nest: 1000. What lies deeper is skipped; each level holds a descriptor
}

func (l *Limits) fill() {
	if l.Entries == 0 {
		l.Entries = 1_000_000
	}
	if l.Depth == 0 {
		l.Depth = 1000
	}
}

// Scan lists what an upper holds. upper is open for reading on its directory, which may be in use by a mounted union:
// what goes while Scan looks is left out. It needs CAP_SYS_ADMIN, without which the kernel shows no marks.
func Scan(ctx context.Context, upper *os.File, limits Limits) (*Delta, error) {
	limits.fill()
	s := &scanner{walker: walker{ctx: ctx, limits: limits}, d: &Delta{}, seen: make(map[uint64]struct{})}
	s.visit = s.entry
	s.skip = func(path, why string) { s.d.Skipped = append(s.d.Skipped, Trouble{path, why}) }
	err := s.walk(upper)
	if errors.Is(err, errTooMany) {
		err = fault.New(fault.Refuse, fault.Mount, "remove what isn't needed there, or restart with an empty one", "it holds more than %d files", limits.Entries)
	}
	if err != nil {
		return nil, fmt.Errorf("look through the writable layer: %w", err)
	}
	slices.SortFunc(s.d.Entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	return s.d, nil
}

type scanner struct {
	walker
	marks marks
	d     *Delta
	seen  map[uint64]struct{} // inodes with several names whose bytes are counted
}

// entry takes a name into the delta and says whether to enter it.
func (s *scanner) entry(f found) (bool, error) {
	e := Entry{Path: f.path, Mode: uint16(f.stat.Mode & 0o7777), UID: f.stat.Uid, GID: f.stat.Gid, links: uint64(f.stat.Nlink)} //nolint:unconvert // Nlink is narrower on arm64
	err := s.marks.read(f)
	switch {
	case gone(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read the marks of %s: %w", f.path, err)
	}
	if err := s.classify(&e, f); err != nil {
		if gone(err) {
			return false, nil
		}
		s.skip(f.path, err.Error())
		return false, nil
	}
	s.d.Totals.count(e.Kind)
	s.d.Entries = append(s.d.Entries, e)
	return e.Kind.isDir(), nil
}

func (s *scanner) classify(e *Entry, f found) (err error) {
	m := &s.marks
	e.copied = m.has(markOrigin)
	switch f.stat.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		e.Kind, e.made = Directory, time.Unix(f.stat.Ctim.Unix())
		if opaque, ok := m.value(markOpaque); ok && string(opaque) == "y" {
			e.Kind, e.made, e.hides = Opaque, f.made(), m.has(markHides)
		} else if redirect, ok := m.value(markRedirect); ok {
			e.Kind = Redirected
			e.Redirect, err = parseRedirect(redirect)
		} else {
			e.xattrs, err = m.others()
		}
	case unix.S_IFREG:
		return s.regular(e, f)
	case unix.S_IFLNK:
		e.Kind = Symlink
		e.Target, err = readlinkAt(f.dir, f.name)
	case unix.S_IFCHR:
		e.Kind = Device
		if f.stat.Rdev == 0 {
			e.Kind = Whiteout
		}
	default:
		e.Kind, e.fifo = Device, f.stat.Mode&unix.S_IFMT == unix.S_IFIFO
	}
	return err
}

func (s *scanner) regular(e *Entry, f found) (err error) {
	m := &s.marks
	metacopy, ok := m.value(markMetacopy)
	switch {
	case ok:
		e.Kind, e.length, e.made = Metacopy, uint64(max(f.stat.Size, 0)), f.made()
		e.mtime = tree.Time{Sec: f.stat.Mtim.Sec, Nsec: uint32(f.stat.Mtim.Nsec)}
		if e.Digest, err = parseMetacopy(metacopy); err != nil {
			return err
		}
		if redirect, ok := m.value(markRedirect); ok {
			e.Redirect, err = parseRedirect(redirect)
		}
		return err
	case f.stat.Size == 0 && m.has(markWhiteout):
		e.Kind = Whiteout
		return nil
	default:
		e.Kind, e.Size = File, uint64(max(f.stat.Size, 0))
		if f.stat.Nlink > 1 {
			if _, again := s.seen[f.stat.Ino]; again {
				return nil
			}
			s.seen[f.stat.Ino] = struct{}{}
		}
		s.d.Totals.Bytes += e.Size
		return nil
	}
}

// marks are the extended attributes of one entry at a time that overlayfs gives a meaning to.
type marks struct {
	list []byte
	path string
	buf  [markMax]byte
	err  error
}

// read finds out which marks an entry has.
func (m *marks) read(f found) error {
	if m.list == nil {
		m.list = make([]byte, 0, 64<<10) // XATTR_LIST_MAX
	}
	m.path, m.err = f.procPath(), nil
	n, err := unix.Llistxattr(m.path, m.list[:cap(m.list)])
	if errors.Is(err, unix.ENOTSUP) {
		n, err = 0, nil
	}
	m.list = m.list[:max(n, 0)]
	return err
}

func (m *marks) has(name string) bool {
	for list := m.list; len(list) > 0; {
		i := bytes.IndexByte(list, 0)
		if i < 0 {
			return false
		}
		if string(list[:i]) == name {
			return true
		}
		list = list[i+1:]
	}
	return false
}

// value returns a mark's value, valid until the next call. One that can't be read is taken for one with a damaged value.
func (m *marks) value(name string) ([]byte, bool) {
	if !m.has(name) {
		return nil, false
	}
	n, err := unix.Lgetxattr(m.path, name, m.buf[:])
	if errors.Is(err, unix.ENODATA) {
		return nil, false
	}
	if err != nil {
		return m.buf[:1], true
	}
	return m.buf[:n], true
}

// others returns the attributes that aren't marks, by name.
func (m *marks) others() ([]tree.Xattr, error) {
	var all []tree.Xattr
	for name := range strings.SplitSeq(strings.TrimSuffix(string(m.list), "\x00"), "\x00") {
		if name == "" || strings.HasPrefix(name, overlayMark) {
			continue
		}
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		n, err := unix.Lgetxattr(m.path, name, value)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the attribute %s: %w", name, err)
		}
		all = append(all, tree.Xattr{Name: name, Value: bytes.Clone(value[:n])})
	}
	slices.SortFunc(all, func(a, b tree.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}
