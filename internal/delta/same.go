package delta

import (
	"bytes"
	"slices"

	"github.com/powernode/powernode-agent/internal/tree"
)

// Change is what another root image has at a path in the place of the old one's.
type Change uint8

// The changes. The zero value is none.
const (
	// Same: nothing that a person would call a change. Times don't count.
	Same Change = iota
	// Added: there was nothing.
	Added
	// Removed: there is nothing any more.
	Removed
	// Attributes: mode, owner or extended attributes.
	Attributes
	// Content: bytes, target or device number; for a directory that is hidden as a whole, anything in it.
	Content
	// Type: a directory in the place of a file, and the like.
	Type
)

var changeNames = [...]string{"", "added", "removed", "attributes", "content", "kind"}

func (c Change) String() string { return changeNames[min(int(c), len(changeNames)-1)] }

// MarshalText makes the JSON form.
func (c Change) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// changeOf returns what the new image has in the place of the old one's node; either may be nil.
func changeOf(from, to *tree.Node) Change {
	switch {
	case from == nil && to == nil:
		return Same
	case from == nil:
		return Added
	case to == nil:
		return Removed
	case from.Kind != to.Kind:
		return Type
	case !sameContent(from, to):
		return Content
	case !sameAttributes(from, to):
		return Attributes
	default:
		return Same
	}
}

// changeBelow is changeOf for a directory with all that is in it.
func changeBelow(from, to *tree.Node) Change {
	if c := changeOf(from, to); c != Same || from == nil || from.Kind != tree.Directory {
		return c
	}
	if !sameEntries(from, to) {
		return Content
	}
	return Same
}

func sameEntries(from, to *tree.Node) bool {
	if from.Len() != to.Len() {
		return false
	}
	for name, child := range from.Entries() {
		if changeBelow(child, to.Child(name)) != Same {
			return false
		}
	}
	return true
}

func sameContent(a, b *tree.Node) bool {
	return a.Size == b.Size && a.Digest == b.Digest && bytes.Equal(a.Inline, b.Inline) && a.Target == b.Target && a.Rdev == b.Rdev
}

func sameAttributes(a, b *tree.Node) bool {
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID &&
		slices.EqualFunc(a.Xattrs, b.Xattrs, sameXattr)
}

func sameXattr(x, y tree.Xattr) bool { return x.Name == y.Name && bytes.Equal(x.Value, y.Value) }
