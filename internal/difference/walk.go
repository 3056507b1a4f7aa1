package difference

import (
	"bytes"
	"slices"

	"github.com/powernode/powernode-agent/internal/tree"
)

// walker goes through both trees at once.
type walker struct {
	d *Difference
	// path is that of the directory that is looked at: "" or "/usr/lib". It becomes a string only for an entry.
	path []byte
	// froms and tos are the files that stand in each other's place, name by name: one to one, unless hard links differ.
	froms, tos []*tree.Node
	// pairs and back remember that of some files.
	pairs, back map[*tree.Node]*tree.Node
}

func (w *walker) emit(name string, e Entry) {
	path := make([]byte, 0, len(w.path)+1+len(name))
	e.Path = string(append(append(append(path, w.path...), '/'), name...))
	w.d.Entries = append(w.d.Entries, e)
}

// below runs f with the path of a directory of that name.
func (w *walker) below(name string, f func()) {
	n := len(w.path)
	w.path = append(append(w.path, '/'), name...)
	f()
	w.path = w.path[:n]
}

// one notes a name that only one tree has, with everything in it.
func (w *walker) one(name string, n *tree.Node, kind Kind) {
	e := Entry{Kind: kind}
	if kind == Added {
		e.To = n
	} else {
		e.From = n
	}
	w.emit(name, e)
	if n.Kind == tree.Directory && n.Len() > 0 {
		w.below(name, func() {
			for name, child := range n.Unordered() {
				w.one(name, child, kind)
			}
		})
	}
}

// pair notes what differs at and below a name that both trees have.
func (w *walker) pair(name string, a, b *tree.Node) {
	if a == b {
		return
	}
	what := weightiest(a, b)
	if what != Nothing {
		w.emit(name, Entry{Kind: Changed, What: what, From: a, To: b})
	}
	if a.Kind != tree.Directory && b.Kind != tree.Directory {
		if what != Type {
			w.froms, w.tos = append(w.froms, a), append(w.tos, b)
		}
		return
	}
	// The path is taken back in line: a closure for each directory would be memory for what is equal.
	n := len(w.path)
	w.path = append(append(w.path, '/'), name...)
	w.directories(a, b)
	w.path = w.path[:n]
}

// directories compares what is in a and b, of which at least one is a directory.
func (w *walker) directories(a, b *tree.Node) {
	both := 0
	for name, x := range a.Unordered() {
		if y := b.Child(name); y != nil {
			both++
			w.pair(name, x, y)
		} else {
			w.one(name, x, Removed)
		}
	}
	if both == b.Len() {
		return
	}
	for name, y := range b.Unordered() {
		if a.Child(name) == nil {
			w.one(name, y, Added)
		}
	}
}

// relinked reports whether a file stands in the place of several. Nearly all files have one name in either tree, and aren't
// remembered for it: that took most of the time.
func (w *walker) relinked() bool {
	from, to := tree.FindRepeated(w.froms), tree.FindRepeated(w.tos)
	for i, a := range w.froms {
		if b := w.tos[i]; (from.Several(a) || to.Several(b)) && w.linkedOtherwise(a, b) {
			return true
		}
	}
	return false
}

// linkedOtherwise reports whether one of the files has been seen under another name with another partner.
func (w *walker) linkedOtherwise(a, b *tree.Node) bool {
	x, seen := w.pairs[a]
	y, seenBack := w.back[b]
	if !seen && !seenBack {
		w.pairs[a], w.back[b] = b, a
		return false
	}
	return x != b || y != a
}

// links notes the files that are equal but linked otherwise. The order in which names are seen decides which of
// them it is, so that this is done in the order of the names, and only where it is called for.
func (w *walker) links(from, to *tree.Node) {
	clear(w.pairs)
	clear(w.back)
	for path, a := range from.Walk() {
		b := to.Lookup(path)
		if b == nil || a == b || a.Kind == tree.Directory || a.Kind != b.Kind {
			continue
		}
		if w.linkedOtherwise(a, b) && weightiest(a, b) == Nothing {
			w.emit(path, Entry{Kind: Changed, What: Links, From: a, To: b})
		}
	}
}

func weightiest(a, b *tree.Node) What {
	switch {
	case a.Kind != b.Kind:
		return Type
	case !sameContent(a, b):
		return Content
	case a.Mode != b.Mode || a.UID != b.UID || a.GID != b.GID || !sameXattrs(a.Xattrs, b.Xattrs):
		return Attributes
	case a.Mtime != b.Mtime:
		return Times
	default:
		return Nothing
	}
}

func sameContent(a, b *tree.Node) bool {
	if a.Kind == tree.Directory {
		return true
	}
	return a.Size == b.Size && a.Digest == b.Digest && a.Payload == b.Payload && a.Target == b.Target && a.Rdev == b.Rdev &&
		bytes.Equal(a.Inline, b.Inline)
}

func sameXattrs(a, b []tree.Xattr) bool {
	return slices.EqualFunc(a, b, func(x, y tree.Xattr) bool { return x.Name == y.Name && bytes.Equal(x.Value, y.Value) })
}
