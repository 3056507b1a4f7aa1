// Package tree describes a file tree as data: names, metadata and content digests, without the
// contents themselves (only files of up to InlineMax bytes carry their bytes).
//
// It is what layers are read into, what composition works on, what an image is written from and
// read back to. It is pure: it touches no file system, and it doesn't judge what it holds; names
// and modes from outside are checked by whoever reads them in.
package tree

import (
	"iter"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/fsverity"
)

// InlineMax is the size in bytes up to which a regular file's content lies in the image instead
// of the object store. It is composefs's LCFS_BUILD_INLINE_FILE_SIZE_LIMIT and part of the format:
// another value gives other digests.
const InlineMax = 64

// NameMax is the longest name of a directory entry in bytes (Linux NAME_MAX).
const NameMax = 255

// Kind is the type of an inode.
type Kind uint8

// The inode types. The zero value is none of them.
const (
	Directory Kind = iota + 1
	Regular
	Symlink
	CharDevice
	BlockDevice
	FIFO
	Socket
)

// Time is a moment as an inode holds it: seconds since the epoch, which may be negative, and
// nanoseconds from 0 to 999,999,999 that count forward from there.
type Time struct {
	Sec  int64
	Nsec uint32
}

// Explicit says which fields of a Node are meant even where they hold their zero value, which
// otherwise stands for "the usual". Only composefs dumps from outside need it.
type Explicit uint8

// The fields that can be explicit.
const (
	ExplicitNlink   Explicit = 1 << iota // a link count of 0
	ExplicitPayload                      // no payload, although there is a digest
	ExplicitDigest                       // a digest of 32 zero bytes
)

// Xattr is one extended attribute. Name holds the full name with its namespace ("user.x").
type Xattr struct {
	Name  string
	Value []byte
}

// Node is one inode. Two names that hold the same *Node are hard links to one file.
type Node struct {
	Kind     Kind
	Explicit Explicit
	// Mode is the permission bits with set-user-ID, set-group-ID and sticky: at most 07777.
	Mode     uint16
	UID, GID uint32
	Mtime    Time
	// Xattrs are sorted by name, without duplicates.
	Xattrs []Xattr
	// Rdev is the device number of a CharDevice or BlockDevice in Linux's 32-bit encoding
	// (minor's low byte, 12 bits of major, the rest of minor), as stat(2) gives it.
	Rdev uint32
	// Nlink overrides the link count in an image; 0, the usual value, has it counted.
	Nlink uint32

	// Size is a Regular's size in bytes. A device, FIFO or socket has none; composefs dumps from
	// outside may give one all the same.
	Size uint64
	// Inline is a Regular's content where it lies in the image; its length is Size.
	Inline []byte
	// Digest is the fs-verity digest of a Regular's content where that lies in the object store.
	Digest fsverity.Digest
	// Payload is the content's path below the object store where it isn't Digest.ObjectPath().
	// Only composefs dumps from outside need it.
	Payload string

	// Target is where a Symlink points.
	Target string

	dir *directory // of one that has or had entries
}

// NewDir returns an empty directory with mode perm, owned by root, at the epoch.
func NewDir(perm uint16) *Node { return &Node{Kind: Directory, Mode: perm} }

// PayloadPath returns where a Regular's content lies below the object store; "" for a file
// whose content is inline, empty or absent.
func (n *Node) PayloadPath() string {
	switch {
	case n.Payload != "":
		return n.Payload
	case n.Digest.IsZero(), n.Explicit&ExplicitPayload != 0:
		return ""
	default:
		return n.Digest.ObjectPath()
	}
}

// Xattr returns the value of the attribute of that name.
func (n *Node) Xattr(name string) ([]byte, bool) {
	i, ok := slices.BinarySearchFunc(n.Xattrs, name, func(x Xattr, name string) int {
		return strings.Compare(x.Name, name)
	})
	if !ok {
		return nil, false
	}
	return n.Xattrs[i].Value, true
}

// SetXattr adds or replaces an attribute, keeping the order.
func (n *Node) SetXattr(name string, value []byte) {
	i, ok := slices.BinarySearchFunc(n.Xattrs, name, func(x Xattr, name string) int {
		return strings.Compare(x.Name, name)
	})
	if ok {
		n.Xattrs[i].Value = value
		return
	}
	n.Xattrs = slices.Insert(n.Xattrs, i, Xattr{name, value})
}

// Lookup returns the node at a slash-separated path below n, or nil. It follows no symlink;
// "", "." and "/" name n itself.
func (n *Node) Lookup(path string) *Node {
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." {
			continue
		}
		if n = n.Child(part); n == nil {
			return nil
		}
	}
	return n
}

// Walk yields every name below and including n, parents before children, entries in byte order,
// with its path relative to n without a leading slash; n's own path is "". A file with several
// hard links is yielded once for each.
func (n *Node) Walk() iter.Seq2[string, *Node] {
	return func(yield func(string, *Node) bool) { walk("", n, yield) }
}

func walk(path string, n *Node, yield func(string, *Node) bool) bool {
	if !yield(path, n) {
		return false
	}
	if path != "" {
		path += "/"
	}
	for name, child := range n.Entries() {
		if !walk(path+name, child, yield) {
			return false
		}
	}
	return true
}

// Clone returns a deep copy in which hard links stay hard links. Byte slices are shared: nodes
// treat them as immutable.
func (n *Node) Clone() *Node { return clone(n, make(map[*Node]*Node)) }

func clone(n *Node, seen map[*Node]*Node) *Node {
	if c, ok := seen[n]; ok {
		return c
	}
	c := *n
	c.Xattrs = slices.Clone(n.Xattrs)
	seen[n] = &c
	if n.dir != nil {
		c.dir = n.dir.clone(func(child *Node) *Node { return clone(child, seen) })
	}
	return &c
}
