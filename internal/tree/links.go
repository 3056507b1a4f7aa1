package tree

import (
	"hash/maphash"
	"math/bits"
)

// Links knows which files below a directory have several names. It remembers those alone: a map of all of them took a large part of
// the time that a composition, or an image, takes, and nearly all have one name.
type Links struct {
	// Names and Directories count the names below the directory, and the directories with itself.
	Names, Directories int

	several map[*Node]struct{}
	// knotted are the directories that have such a file in them or further below, or a directory with several names.
	knotted map[*Node]struct{}
}

// FindLinks goes through the tree below root.
func FindLinks(root *Node) *Links {
	g := gathering{dirs: []*Node{root}, parents: []int32{0}}
	g.gather()
	l := &Links{Names: g.names, Directories: len(g.dirs), several: repeated(g.leaves), knotted: make(map[*Node]struct{})}
	for _, n := range g.odd {
		if l.several == nil {
			l.several = make(map[*Node]struct{})
		}
		l.several[n] = struct{}{}
	}
	for _, i := range g.twice {
		l.knot(g, int(i))
	}
	if len(l.several) == 0 {
		return l
	}
	for i, first := range g.first {
		last := len(g.leaves)
		if i+1 < len(g.first) {
			last = g.first[i+1]
		}
		for _, n := range g.leaves[first:last] {
			if l.Several(n) {
				l.knot(g, i)
			}
		}
	}
	return l
}

// knot notes a directory and those above it.
func (l *Links) knot(g gathering, i int) {
	for {
		if _, known := l.knotted[g.dirs[i]]; known {
			return
		}
		l.knotted[g.dirs[i]] = struct{}{}
		i = int(g.parents[i])
	}
}

// Several reports whether a file of the tree may have several names, or has a link count of its own: where it says no, neither is so.
func (l *Links) Several(n *Node) bool {
	if len(l.several) == 0 {
		return false
	}
	_, ok := l.several[n]
	return ok
}

// Plain reports whether no file in a directory of the tree and below it is one of those that Several is about.
func (l *Links) Plain(dir *Node) bool {
	_, ok := l.knotted[dir]
	return !ok
}

// gathering goes through a tree once: fetching each node from memory takes most of the time.
type gathering struct {
	names int
	// dirs are the directories so far, with the place of each one's parent and of its first leaf.
	dirs    []*Node
	parents []int32
	first   []int
	// leaves are what all names lead to that lead to no directory, odd are those with a link count of their own.
	leaves, odd []*Node
	// twice are the directories that have, or hold, a directory with several names.
	twice []int32
}

func (g *gathering) gather() {
	// Nobody has made sure yet that no directory has two names, or is in itself.
	seen := map[*Node]int32{g.dirs[0]: 0}
	for i := 0; i < len(g.dirs); i++ {
		dir := g.dirs[i]
		g.first = append(g.first, len(g.leaves))
		g.names += dir.Len()
		for _, n := range dir.Unordered() {
			if n.Kind != Directory {
				g.leaves = append(g.leaves, n)
				if n.Nlink != 0 || n.Explicit&ExplicitNlink != 0 {
					g.odd = append(g.odd, n)
				}
				continue
			}
			if first, again := seen[n]; again {
				g.twice = append(g.twice, first, int32(i))
				continue
			}
			seen[n] = int32(len(g.dirs))
			g.dirs, g.parents = append(g.dirs, n), append(g.parents, int32(i))
		}
	}
}

// FindRepeated is FindLinks for a list of what names lead to: Several is about those that are in it more than once.
func FindRepeated(list []*Node) *Links {
	return &Links{Names: len(list), several: repeated(list)}
}

// repeated returns the nodes that are in a list more than once.
func repeated(list []*Node) map[*Node]struct{} {
	f := bitFilter{seed: maphash.MakeSeed(), bits: make([]uint64, 1<<bits.Len(uint(len(list))/4))} // 16 bits or more for each
	var perhaps []*Node
	for _, n := range list {
		if f.add(n) {
			perhaps = append(perhaps, n)
		}
	}
	if len(perhaps) == 0 {
		return nil
	}
	// Each that is in the list twice is among these, and few others; which ones, is seen by going through the list again.
	count := make(map[*Node]int, len(perhaps))
	for _, n := range perhaps {
		count[n] = 0
	}
	clear(f.bits)
	for n := range count {
		f.add(n)
	}
	several := make(map[*Node]struct{})
	for _, n := range list {
		if !f.has(n) {
			continue
		}
		if c, ok := count[n]; ok {
			if count[n] = c + 1; c > 0 {
				several[n] = struct{}{}
			}
		}
	}
	return several
}

// bitFilter is a set of nodes that may take others for its own.
type bitFilter struct {
	seed maphash.Seed
	bits []uint64
}

func (f *bitFilter) bit(n *Node) (word int, bit uint64) {
	h := maphash.Comparable(f.seed, n)
	return int(h>>6) & (len(f.bits) - 1), 1 << (h & 63)
}

// add adds a node, and reports whether it seemed to be there.
func (f *bitFilter) add(n *Node) bool {
	word, bit := f.bit(n)
	was := f.bits[word]&bit != 0
	f.bits[word] |= bit
	return was
}

func (f *bitFilter) has(n *Node) bool {
	word, bit := f.bit(n)
	return f.bits[word]&bit != 0
}
