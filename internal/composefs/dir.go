package composefs

import (
	"iter"

	"github.com/powernode/powernode-agent/internal/erofs"
)

// dirBlocks yields the entries of a directory block by block, each with as many as fit, and how
// many bytes they take.
func dirBlocks(entries []entry) iter.Seq2[[]entry, int] {
	return func(yield func([]entry, int) bool) {
		first, size := 0, 0
		for i := range entries {
			need := erofs.DirentSize + len(entries[i].name)
			if size+need > blockSize {
				if !yield(entries[first:i], size) {
					return
				}
				first, size = i, 0
			}
			size += need
		}
		yield(entries[first:], size)
	}
}

// dirShape returns how many whole blocks a directory takes, and the size of the entries after
// them: the last block follows the inode unless it is more than half full.
func dirShape(entries []entry) (blocks uint32, tail uint16) {
	last := 0
	for _, size := range dirBlocks(entries) {
		blocks++
		last = size
	}
	if last > blockSize/2 {
		return blocks, 0
	}
	return blocks - 1, uint16(last)
}

// entriesOf returns a directory's entries.
func (p *plan) entriesOf(in *inode) []entry {
	r := p.runs[in.run]
	return p.entries[r.first:][:r.count]
}

// writeDirTail writes the entries that follow a directory's inode.
func (p *plan) writeDirTail(o *output, in *inode) {
	var last []entry
	for last = range dirBlocks(p.entriesOf(in)) {
		continue
	}
	p.writeDirents(o, last)
}

// writeDirBlocks writes a directory's whole blocks.
func (p *plan) writeDirBlocks(o *output, in *inode) {
	left := in.blocks
	for entries := range dirBlocks(p.entriesOf(in)) {
		if left == 0 {
			return
		}
		left--
		p.writeDirents(o, entries)
		o.align(blockSize)
	}
}

// writeDirents writes the entries of one block, without padding.
func (p *plan) writeDirents(o *output, entries []entry) {
	nameOff := uint16(len(entries) * erofs.DirentSize)
	for i := range entries {
		e := &entries[i]
		child := &p.inodes[e.ref]
		o.room()
		o.buf = erofs.AppendDirent(o.buf, child.nid, nameOff, erofs.TypeOf(child.mode()))
		nameOff += uint16(len(e.name))
	}
	for i := range entries {
		o.text(entries[i].name)
	}
}
