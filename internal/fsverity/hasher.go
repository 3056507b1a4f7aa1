package fsverity

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// BlockSize is the size in bytes of a Merkle tree block, and of the pieces of data it covers.
const BlockSize = 4096

const (
	// fanout is how many hashes one tree block holds.
	fanout = BlockSize / sha256.Size
	// spanSize is how many bytes of data one block of the tree's lowest level covers.
	spanSize = fanout * BlockSize
	// maxUpper is how many levels above the lowest a file of 2^64-1 bytes needs.
	maxUpper = 8
)

// treeBlock is a block of the Merkle tree while it fills: n hashes, then bytes without meaning.
type treeBlock struct {
	n   int
	buf [BlockSize]byte
}

func (b *treeBlock) add(d [sha256.Size]byte) {
	copy(b.buf[b.n*sha256.Size:], d[:])
	b.n++
}

// Hasher computes a file's fs-verity digest from its bytes, written in order. It keeps one block
// per level of the tree, so it needs 8 KiB for a file of up to 512 KiB and 40 KiB at most. The
// zero value is ready to use; a Hasher is not safe for concurrent use.
type Hasher struct {
	size uint64
	// data holds the last block of the file while it is incomplete: size % BlockSize bytes.
	data   [BlockSize]byte
	lowest treeBlock
	upper  [maxUpper]*treeBlock
	plain  hash.Hash
}

// NewHasher returns a Hasher for the fs-verity digest alone.
func NewHasher() *Hasher { return &Hasher{} }

// NewDualHasher returns a Hasher that computes the plain SHA-256 of the same bytes as well.
func NewDualHasher() *Hasher { return &Hasher{plain: sha256.New()} }

// Write adds p to the file. It never fails.
func (h *Hasher) Write(p []byte) (int, error) {
	written := len(p)
	if h.plain != nil {
		h.plain.Write(p)
	}
	if held := int(h.size % BlockSize); held > 0 {
		n := copy(h.data[held:], p)
		h.size += uint64(n)
		p = p[n:]
		if held+n < BlockSize {
			return written, nil
		}
		h.push(0, sha256.Sum256(h.data[:]))
	}
	for len(p) >= BlockSize {
		h.size += BlockSize
		h.push(0, sha256.Sum256(p[:BlockSize]))
		p = p[BlockSize:]
	}
	h.size += uint64(copy(h.data[:], p))
	return written, nil
}

// push adds the hash of a whole block to a level of the tree (0 is the lowest, which holds the
// hashes of the data), and the hash of every tree block that this completes to the level above.
func (h *Hasher) push(level int, d [sha256.Size]byte) {
	for ; ; level++ {
		b := h.level(level)
		b.add(d)
		if b.n < fanout {
			return
		}
		d = sha256.Sum256(b.buf[:])
		b.n = 0
	}
}

// level returns the block that fills at a level, which push makes sure is never full.
func (h *Hasher) level(i int) *treeBlock {
	if i == 0 {
		return &h.lowest
	}
	if h.upper[i-1] == nil {
		h.upper[i-1] = new(treeBlock)
	}
	return h.upper[i-1]
}

// Sum returns the digest of the bytes written so far. More may be written afterwards.
func (h *Hasher) Sum() Digest { return descriptor(h.size, h.root()) }

// root returns the hash of the tree's top block: zeros for an empty file, and the hash of the
// padded data itself where that is one block.
func (h *Hasher) root() [sha256.Size]byte {
	var carry [sha256.Size]byte
	if h.size == 0 {
		return carry
	}
	top := h.top()
	carried := false
	if held := int(h.size % BlockSize); held > 0 {
		clear(h.data[held:])
		carry, carried = sha256.Sum256(h.data[:]), true
	}
	for i := 0; i <= top; i++ {
		carry, carried = h.level(i).close(carry, carried, i == top)
	}
	return carry
}

// close returns what the level hands to the one above: the hash of its block with the carry from
// below added, or nothing from an empty level. The top level's only hash is the root itself. The
// block keeps its n hashes, so that more can be added.
func (b *treeBlock) close(carry [sha256.Size]byte, carried, top bool) ([sha256.Size]byte, bool) {
	n := b.n
	if carried {
		// The slot after the last hash is free: push never leaves a block full.
		copy(b.buf[n*sha256.Size:], carry[:])
		n++
	}
	switch {
	case n == 0:
		return carry, false
	case n == 1 && top:
		return [sha256.Size]byte(b.buf[:sha256.Size]), true
	}
	clear(b.buf[n*sha256.Size:])
	return sha256.Sum256(b.buf[:]), true
}

// top returns the highest level that holds a hash, and 0 where none does.
func (h *Hasher) top() int {
	for i := maxUpper; i > 0; i-- {
		if b := h.upper[i-1]; b != nil && b.n > 0 {
			return i
		}
	}
	return 0
}

// Size returns the number of bytes written so far.
func (h *Hasher) Size() uint64 { return h.size }

// SHA256 returns the plain SHA-256 of the bytes written so far. It panics on a Hasher that
// NewDualHasher did not make: there is no value that would not be a lie.
func (h *Hasher) SHA256() [sha256.Size]byte {
	if h.plain == nil {
		panic("fsverity: SHA256 of a Hasher that NewDualHasher did not make")
	}
	var sum [sha256.Size]byte
	h.plain.Sum(sum[:0])
	return sum
}

// Reset makes h ready for another file, keeping its memory.
func (h *Hasher) Reset() {
	h.size = 0
	h.lowest.n = 0
	for _, b := range h.upper {
		if b != nil {
			b.n = 0
		}
	}
	if h.plain != nil {
		h.plain.Reset()
	}
}

// descriptor returns the SHA-256 of struct fsverity_descriptor, which is the file's digest.
func descriptor(size uint64, root [sha256.Size]byte) Digest {
	var d [256]byte
	d[0] = 1  // version
	d[1] = 1  // FS_VERITY_HASH_ALG_SHA256
	d[2] = 12 // log2 of the block size; salt and signature sizes stay 0
	binary.LittleEndian.PutUint64(d[8:], size)
	copy(d[16:], root[:])
	return sha256.Sum256(d[:])
}
