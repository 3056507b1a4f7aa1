package tree

import (
	"hash/maphash"
	"math/bits"
)

// Links knows which files below a directory may have several names. It takes a few bits for each, where a map of all
// of them took a large part of the time that a composition, or an image, takes: nearly all have one name.
type Links struct {
	// Names and Directories count the names below the directory, and the directories with itself.
	Names, Directories int

	seed maphash.Seed
	// once are bits of those that were seen, again of those that were when their bit was set.
	once, again []uint64
}

// FindLinks goes through the tree below root.
func FindLinks(root *Node) *Links {
	l := &Links{seed: maphash.MakeSeed()}
	// Nobody has made sure yet that no directory has two names, or is in itself.
	dirs := map[*Node]struct{}{}
	l.count(root, dirs)
	words := 1 << bits.Len(uint(l.Names)/4) // 16 bits or more for each
	l.once, l.again = make([]uint64, words), make([]uint64, words)
	for dir := range dirs {
		for _, n := range dir.Unordered() {
			if n.Kind != Directory {
				l.add(n)
			}
		}
	}
	l.once = nil
	return l
}

func (l *Links) count(dir *Node, dirs map[*Node]struct{}) {
	dirs[dir] = struct{}{}
	l.Directories++
	l.Names += dir.Len()
	for _, n := range dir.Unordered() {
		if n.Kind != Directory {
			continue
		}
		if _, again := dirs[n]; !again {
			l.count(n, dirs)
		}
	}
}

func (l *Links) bit(n *Node) (word int, bit uint64) {
	h := maphash.Comparable(l.seed, n)
	return int(h>>6) & (len(l.again) - 1), 1 << (h & 63)
}

func (l *Links) add(n *Node) {
	word, bit := l.bit(n)
	if l.once[word]&bit != 0 {
		l.again[word] |= bit
	}
	l.once[word] |= bit
}

// Several reports whether a file of the tree may have several names: where it says no, it has one.
func (l *Links) Several(n *Node) bool {
	word, bit := l.bit(n)
	return l.again[word]&bit != 0
}
