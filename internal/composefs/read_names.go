package composefs

import (
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/tree"
)

// readLeaf is an inode that is no directory, with its names.
type readLeaf struct {
	node  *tree.Node
	ino   uint32
	nlink uint32
	// fileType is what its directory entries must say.
	fileType uint8
	names    []readName
	// homes are the names in whose place the inode may lie, as its number shows: several only if
	// no other inode was numbered between them.
	homes []readName
	stub  bool
}

// readName is a name in a directory, given by its index in the queue.
type readName struct {
	dir  int
	name string
}

// number finds out whether the inode may lie in the place of the leaf's latest name.
func (r *reader) number(l *readLeaf) {
	first := len(l.homes) == 0
	if first && l.ino == r.next {
		r.next++
	} else if first || l.ino != r.next-1 {
		return
	}
	l.homes = append(l.homes, l.names[len(l.names)-1])
}

// settle makes explicit, once all names are known, what differs from the usual: link counts, and
// which of several names is the first.
func (r *reader) settle() {
	for _, l := range r.leaves {
		if l.stub {
			continue
		}
		switch {
		case l.nlink == 0:
			l.node.Explicit |= tree.ExplicitNlink
		case l.nlink != uint32(len(l.names)):
			l.node.Nlink = l.nlink
		}
		if len(l.names) > 1 {
			r.markNames(l)
		}
	}
}

// markNames marks the names before the one in whose place the inode lies.
func (r *reader) markNames(l *readLeaf) {
	first := l.names[0]
	for _, name := range l.names {
		if r.before(name, first) {
			first = name
		}
	}
	if len(l.homes) == 0 || slices.Contains(l.homes, first) {
		return
	}
	for _, name := range l.names {
		if r.before(name, l.homes[0]) {
			r.queue[name.dir].node.SetLink(name.name, l.node)
		}
	}
}

// before reports whether a comes before b in a depth-first walk in byte order of names.
func (r *reader) before(a, b readName) bool {
	for a.dir != b.dir {
		da, db := &r.queue[a.dir], &r.queue[b.dir]
		if da.depth >= db.depth {
			a = readName{da.parent, da.name}
		} else {
			b = readName{db.parent, db.name}
		}
	}
	return a.name < b.name
}

// path returns the path of a directory of the queue, without a leading slash.
func (r *reader) path(index int) string {
	var names []string
	for ; index != 0; index = r.queue[index].parent {
		names = append(names, r.queue[index].name)
	}
	slices.Reverse(names)
	return strings.Join(names, "/")
}
