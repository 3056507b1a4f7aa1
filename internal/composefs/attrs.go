package composefs

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/tree"
)

// attr is an attribute as it stands in the image.
type attr struct {
	name  string
	value []byte
	kind  attrKind
	// object is the digest that a metacopy or a redirect of the usual form consists of.
	object *fsverity.Digest
}

// attrKind tells apart the two attributes that nearly every file has with a value of its own.
type attrKind uint8

const (
	ordinary attrKind = iota
	metacopy
	redirect
)

// attrs holds the attributes of one inode at a time, without an allocation for each.
type attrs struct {
	list         []attr
	metacopyData [metacopySize]byte
	redirectData []byte
}

// of returns the inode's attributes, sorted by name; they are valid until the next call. Names
// that overlayfs would act on are escaped, and what overlayfs needs to know is added.
func (a *attrs) of(p *plan, index int) []attr {
	in := &p.inodes[index]
	n := in.node
	a.list = a.list[:0]
	for _, x := range n.Xattrs {
		a.list = append(a.list, attr{name: escapeName(x.Name), value: x.Value})
	}
	switch {
	case external(n):
		a.addContent(n)
	case in.flags&isEscapedWhiteout != 0:
		a.set(nameEscapedWhiteout, nil)
		a.set(nameUserWhiteout, nil)
	case in.flags&holdsWhiteouts != 0:
		a.set(nameEscapedWhiteouts, nil)
		a.set(nameUserWhiteouts, nil)
		if p.version >= 1 {
			a.set(nameEscapedOpaque, []byte("x"))
			a.set(nameUserOpaque, []byte("x"))
		}
	}
	if index == 0 {
		a.set(nameOpaque, []byte("y"))
	}
	byName := func(x, y attr) int { return strings.Compare(x.name, y.name) }
	if !slices.IsSortedFunc(a.list, byName) {
		slices.SortFunc(a.list, byName)
	}
	return a.list
}

// addContent says where a file's content lies and which digest it has.
func (a *attrs) addContent(n *tree.Node) {
	m := attr{name: nameMetacopy, kind: metacopy}
	if hasDigest(n) {
		m.object, m.value = &n.Digest, appendMetacopy(a.metacopyData[:0], n.Digest)
	}
	a.list = append(a.list, m)
	r := attr{name: nameRedirect, kind: redirect}
	switch {
	case n.Payload != "":
		a.redirectData = append(append(a.redirectData[:0], '/'), n.Payload...)
		if d, ok := parseObjectPath(n.Payload); ok {
			r.object = &d
		}
	case !n.Digest.IsZero() && n.Explicit&tree.ExplicitPayload == 0:
		a.redirectData = appendObjectPath(append(a.redirectData[:0], '/'), n.Digest)
		r.object = &n.Digest
	default:
		return
	}
	r.value = a.redirectData
	a.list = append(a.list, r)
}

// metacopySize is the size of struct ovl_metacopy with a SHA-256 digest.
const metacopySize = 4 + digestSize

// digestSize is the size of a SHA-256 digest in bytes.
const digestSize = 32

// appendMetacopy adds overlayfs's struct ovl_metacopy to b: version 0, its own length, no flags,
// FS_VERITY_HASH_ALG_SHA256, the digest. The one of a file without a digest is empty.
func appendMetacopy(b []byte, d fsverity.Digest) []byte {
	return append(append(b, 0, metacopySize, 0, 1), d[:]...)
}

// hasDigest reports whether the image says which digest the file's content has.
func hasDigest(n *tree.Node) bool {
	return !n.Digest.IsZero() || n.Explicit&tree.ExplicitDigest != 0
}

// appendObjectPath adds d.ObjectPath() to b.
func appendObjectPath(b []byte, d fsverity.Digest) []byte {
	var digits [2 * digestSize]byte
	for i := 0; i < digestSize; i += 4 {
		binary.LittleEndian.PutUint64(digits[2*i:], hexDigits(binary.LittleEndian.Uint32(d[i:])))
	}
	return append(append(append(b, digits[:2]...), '/'), digits[2:]...)
}

// hexDigits returns the eight hexadecimal digits of four bytes, the lowest byte first: all at once, because each file's path is made
// or compared whenever an image is written or read.
func hexDigits(b uint32) uint64 {
	const ones = 0x0101010101010101
	x := uint64(b)
	x = (x | x<<16) & 0x0000ffff0000ffff
	x = (x | x<<8) & 0x00ff00ff00ff00ff
	x = x>>4&0x000f000f000f000f | x&0x000f000f000f000f<<8
	letters := (x + 6*ones) >> 4 & ones
	return x + '0'*ones + letters*('a'-'0'-10)
}

// set adds an attribute or replaces the one of that name.
func (a *attrs) set(name string, value []byte) {
	for i := range a.list {
		if a.list[i].name == name {
			a.list[i].value = value
			return
		}
	}
	a.list = append(a.list, attr{name: name, value: value})
}

// escapeName keeps an attribute of the tree from having a meaning to the overlayfs that the image
// is mounted with: "trusted.overlay.x" becomes "trusted.overlay.overlay.x", which overlayfs shows
// to the layer above as the former.
func escapeName(name string) string {
	if rest, ok := strings.CutPrefix(name, overlayPrefix); ok {
		return escapePrefix + rest
	}
	return name
}

// unescapeName undoes escapeName. ok is false for a name that overlayfs acts on.
func unescapeName(name string) (plain string, ok bool) {
	if !strings.HasPrefix(name, overlayPrefix) {
		return name, true
	}
	if rest, ok := strings.CutPrefix(name, escapePrefix); ok {
		return overlayPrefix + rest, true
	}
	return "", false
}
