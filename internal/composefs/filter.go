package composefs

import (
	"hash/maphash"
	"math/bits"

	"github.com/powernode/powernode-agent/internal/fsverity"
)

// filter finds the attributes of objects that occur more than once, and few others beside: most occur once, and counting each of
// them took a large part of the time that an image takes. The hash is a secret, so that nobody can choose objects that collide.
type filter struct {
	seed maphash.Seed
	// once are bits of those that were added, again of those that were when their bit was set.
	once, again []uint64
	some        bool
}

// newFilter makes one for as many objects.
func newFilter(objects int) *filter {
	words := 1 << bits.Len(uint(objects)/2) // 32 bits or more for each, which has two attributes
	return &filter{seed: maphash.MakeSeed(), once: make([]uint64, words), again: make([]uint64, words)}
}

func (f *filter) hash(d *fsverity.Digest) uint64 { return maphash.Bytes(f.seed, d[:]) }

func (f *filter) bit(hash uint64, kind attrKind) (word int, bit uint64) {
	h := hash + uint64(kind)*0x9e3779b97f4a7c15
	return int(h>>6) & (len(f.once) - 1), 1 << (h & 63)
}

func (f *filter) add(a attr) { f.set(f.hash(a.object), a.kind) }

// addPlain is add of both attributes of a plain file.
func (f *filter) addPlain(d *fsverity.Digest) {
	h := f.hash(d)
	f.set(h, metacopy)
	f.set(h, redirect)
}

func (f *filter) set(hash uint64, kind attrKind) {
	word, bit := f.bit(hash, kind)
	if f.once[word]&bit != 0 {
		f.again[word] |= bit
		f.some = true
	}
	f.once[word] |= bit
}

// has reports whether an attribute was perhaps added more than once; where it says no, it wasn't.
func (f *filter) has(a attr) bool { return f.isSet(f.hash(a.object), a.kind) }

// hasPlain is has of either attribute of a plain file.
func (f *filter) hasPlain(d *fsverity.Digest) bool {
	h := f.hash(d)
	return f.isSet(h, metacopy) || f.isSet(h, redirect)
}

func (f *filter) isSet(hash uint64, kind attrKind) bool {
	word, bit := f.bit(hash, kind)
	return f.again[word]&bit != 0
}
