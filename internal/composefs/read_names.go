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
	// home says that the inode may lie in the place of name, as its number shows.
	home bool
	stub bool
	// name is its first name, and more are the others, which few have.
	name readName
	more *readNames
}

// readNames are the names of an inode but for the first one.
type readNames struct {
	names []readName
	// homes are those in whose place the inode may lie as well: several only if no other inode was numbered between them.
	homes []readName
}

// names yields all names, in the order in which they were found.
func (l *readLeaf) names(yield func(readName) bool) {
	if yield(l.name) && l.more != nil {
		slices.Values(l.more.names)(yield)
	}
}

// mayLie reports whether the inode may lie in the place of a name.
func (l *readLeaf) mayLie(name readName) bool {
	return l.home && name == l.name || slices.Contains(l.homes(), name)
}

func (l *readLeaf) homes() []readName {
	if l.more == nil {
		return nil
	}
	return l.more.homes
}

// links is how many names there are.
func (l *readLeaf) links() int {
	if l.more == nil {
		return 1
	}
	return 1 + len(l.more.names)
}

// readName is a name in a directory, given by its index in the queue.
type readName struct {
	dir  int32
	name string
}

// number finds out whether the inode may lie in the place of its latest name.
func (r *reader) number(l *readLeaf, name readName) {
	first := !l.home && len(l.homes()) == 0
	if first && l.ino == r.next {
		r.next++
	} else if first || l.ino != r.next-1 {
		return
	}
	if l.more == nil {
		l.home = true
	} else {
		l.more.homes = append(l.more.homes, name)
	}
}

// settle makes explicit, once all names are known, what differs from the usual: link counts, and
// which of several names is the first.
func (r *reader) settle() {
	for i := range r.leaves {
		l := &r.leaves[i]
		if l.stub {
			continue
		}
		switch {
		case l.nlink == 0:
			l.node.Explicit |= tree.ExplicitNlink
		case l.nlink != uint32(l.links()):
			l.node.Nlink = l.nlink
		}
		if l.more != nil {
			r.markNames(l)
		}
	}
}

// markNames marks the names before the one in whose place the inode lies.
func (r *reader) markNames(l *readLeaf) {
	first := l.name
	for name := range l.names {
		if r.before(name, first) {
			first = name
		}
	}
	if !l.home && len(l.homes()) == 0 || l.mayLie(first) {
		return
	}
	home := l.name
	if !l.home {
		home = l.homes()[0]
	}
	for name := range l.names {
		if r.before(name, home) {
			r.queue[name.dir].node.SetLink(name.name, l.node)
		}
	}
}

// before reports whether a comes before b in a depth-first walk in byte order of names.
func (r *reader) before(a, b readName) bool {
	for a.dir != b.dir {
		da, db := &r.queue[a.dir], &r.queue[b.dir]
		if da.depth >= db.depth {
			a = readName{int32(da.parent), da.name}
		} else {
			b = readName{int32(db.parent), db.name}
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
