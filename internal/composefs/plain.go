package composefs

import (
	"bytes"

	"github.com/powernode/powernode-agent/internal/erofs"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/tree"
)

// Nearly every inode of an image is a plain file's: content in the object store, of a digest, at the usual place, and no attribute
// of the tree's own. What such an inode says beside its fields is the same for all of them but for the digest, and is written from a
// template: putting the two attributes together, three times for each file, took half of the time that an image takes.

// plainFile reports whether a node is a plain file.
func plainFile(n *tree.Node) bool {
	return external(n) && len(n.Xattrs) == 0 && n.Payload == "" && n.Explicit == 0 && !n.Digest.IsZero()
}

// plainAttrs are the attributes of a plain file none of which is shared, with zeros in the place of the digest and of its path, and
// where those are.
type plainAttrs struct {
	template     []byte
	digest, path int
}

var usualXattrs = newPlainAttrs()

func newPlainAttrs() plainAttrs {
	var zero fsverity.Digest
	b := erofs.AppendXattrHeader(nil, ^(erofs.XattrFilterBit(nameMetacopy) | erofs.XattrFilterBit(nameRedirect)), 0)
	metacopy := appendMetacopy(nil, zero)
	b = erofs.AppendXattrEntry(b, nameMetacopy, metacopy)
	// Its four bytes before the digest are found nowhere else.
	p := plainAttrs{digest: bytes.LastIndex(b, metacopy) + len(metacopy) - digestSize, path: len(b)}
	b = erofs.AppendXattrEntry(b, nameRedirect, appendObjectPath([]byte{'/'}, zero))
	p.path += bytes.IndexByte(b[p.path:], '/') + 1
	p.template = b
	return p
}

// append adds the attributes of a plain file with that digest to b.
func (p *plainAttrs) append(b []byte, d *fsverity.Digest) []byte {
	at := len(b)
	b = append(b, p.template...)
	copy(b[at+p.digest:], d[:])
	appendObjectPath(b[at+p.path:at+p.path], *d)
	return b
}
