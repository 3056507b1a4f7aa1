package layer

import (
	"strings"

	"github.com/powernode/powernode-agent/internal/tree"
)

// Merge applies layers to each other, the lowest first, and returns the tree. Whiteouts are gone
// from it; hard links are names that share a node. The root has the metadata of the last layer
// that named it, or 0755 of root at the epoch; the sealing tree gives it others. A layer may stand
// in the list more than once.
func Merge(layers ...*Layer) (*tree.Node, error) {
	m := merger{root: tree.NewDir(0o755)}
	for _, l := range layers {
		if err := m.apply(l); err != nil {
			return nil, err
		}
	}
	return m.root, nil
}

type merger struct {
	root *tree.Node
	// own holds the nodes that the current layer put or named.
	own map[*tree.Node]struct{}
}

func (m *merger) apply(l *Layer) error {
	m.own = make(map[*tree.Node]struct{}, len(l.changes))
	// Whiteouts are about the layers below wherever they stand in their own.
	for i := range l.changes {
		m.hide(&l.changes[i])
	}
	for i := range l.changes {
		c := &l.changes[i]
		if reason := m.put(c, l.merged); reason != "" {
			return refuse(c.path, reason)
		}
	}
	l.merged = true
	return nil
}

// hide applies a whiteout. What isn't there needs no hiding.
func (m *merger) hide(c *change) {
	switch c.op {
	case opOpaque:
		if dir := m.root.Lookup(c.path); dir != nil {
			for name := range dir.Entries() {
				dir.RemoveChild(name)
			}
		}
	case opWhiteout:
		dir, base := split(c.path)
		if parent := m.root.Lookup(dir); parent != nil {
			parent.RemoveChild(base)
		}
	}
}

// put applies an entry; again says that its node is in a tree already. reason is "" unless it
// can't be applied.
func (m *merger) put(c *change, again bool) (reason string) {
	switch c.op {
	case opNode:
		n := c.node
		if again {
			n = withoutEntries(n)
		}
		m.own[n] = struct{}{}
		return m.putNode(c.path, n)
	case opLink:
		target := m.root.Lookup(c.target)
		switch {
		case target == nil:
			return "it is a hard link to " + quoteShort(c.target) + ", which is not there"
		case target.Kind == tree.Directory:
			return "it is a hard link to a directory, " + quoteShort(c.target)
		}
		return m.putNode(c.path, target)
	case opWhiteout:
		dir, base := split(c.path)
		if parent := m.root.Lookup(dir); parent != nil && parent.Child(base) != nil {
			return "the same layer holds it and then its whiteout"
		}
	}
	return ""
}

func (m *merger) putNode(path string, n *tree.Node) (reason string) {
	if path == "" {
		setMetadata(m.root, n)
		return ""
	}
	parent, base, reason := m.parent(path)
	if reason != "" {
		return reason
	}
	old := parent.Child(base)
	switch {
	case old == nil || old.Kind != tree.Directory:
		parent.SetChild(base, n)
	case n.Kind == tree.Directory:
		setMetadata(old, n)
		m.own[old] = struct{}{}
	case m.filled(old):
		return "the same layer has a directory of that name with entries in it"
	default:
		parent.SetChild(base, n)
	}
	return ""
}

// parent returns the directory that path is an entry of, made up as far as no layer named it.
func (m *merger) parent(path string) (dir *tree.Node, base, reason string) {
	dir = m.root
	for {
		name, rest, more := strings.Cut(path, "/")
		if !more {
			return dir, name, ""
		}
		next := dir.Child(name)
		if next == nil {
			next = tree.NewDir(0o755)
			m.own[next] = struct{}{}
			dir.SetChild(name, next)
		}
		if next.Kind != tree.Directory {
			return nil, "", "the parent " + quoteShort(name) + " is not a directory but a " + kindName(next.Kind)
		}
		dir, path = next, rest
	}
}

// filled reports whether the current layer put anything into the directory.
func (m *merger) filled(dir *tree.Node) bool {
	for _, child := range dir.Entries() {
		if _, ok := m.own[child]; ok {
			return true
		}
		if child.Kind == tree.Directory && m.filled(child) {
			return true
		}
	}
	return false
}

func setMetadata(dir, from *tree.Node) {
	dir.Mode, dir.UID, dir.GID = from.Mode, from.UID, from.GID
	dir.Mtime, dir.Xattrs = from.Mtime, from.Xattrs
}

// withoutEntries copies a node, of a directory only the metadata.
func withoutEntries(n *tree.Node) *tree.Node {
	return &tree.Node{
		Kind: n.Kind, Mode: n.Mode, UID: n.UID, GID: n.GID, Mtime: n.Mtime, Xattrs: n.Xattrs,
		Rdev: n.Rdev, Size: n.Size, Inline: n.Inline, Digest: n.Digest, Target: n.Target,
	}
}

func kindName(k tree.Kind) string {
	switch k {
	case tree.Directory:
		return "directory"
	case tree.Regular:
		return "regular file"
	case tree.Symlink:
		return "symlink"
	case tree.CharDevice, tree.BlockDevice:
		return "device node"
	case tree.FIFO:
		return "FIFO"
	default:
		return "socket"
	}
}
