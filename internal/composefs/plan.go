package composefs

import (
	"fmt"

	"github.com/powernode/powernode-agent/internal/erofs"
	"github.com/powernode/powernode-agent/internal/tree"
)

// inode is an inode of the image, in little space: a tree of 60,000 entries has as many.
type inode struct {
	node   *tree.Node
	nid    uint64
	parent uint32
	// run is the index of a directory's entries.
	run   uint32
	nlink uint32
	// refs is where the inode's attributes start in plan.refs.
	refs uint32
	// xattrSize is the size of the attributes in bytes, blocks the number of whole data blocks.
	xattrSize uint32
	blocks    uint32
	// tail is how many bytes follow the inode, pad how many zeros go before it.
	tail, pad uint16
	flags     uint8
}

// What an inode's flags say.
const (
	isCompact uint8 = 1 << iota
	isStub
	isEscapedWhiteout // a whiteout, written as a regular file with an attribute
	holdsWhiteouts    // the directory of one
	isPlain           // a plain file, none of whose attributes is shared
)

// plan is an image before it is written: which inodes there are, in which order, and where
// everything goes.
type plan struct {
	version uint32
	hasACL  bool
	entries []entry
	runs    []run
	inodes  []inode
	minTime tree.Time
	// refs holds, for each attribute of each inode in order, its place among the shared
	// attributes in 4-byte units, or unshared.
	refs   []uint32
	shared []attr

	// The areas of the image in bytes from its start. Inodes start right after the superblock.
	inodesEnd, sharedEnd, dataStart uint64
	dataBlocks                      uint64
}

// newPlan lays out the image of the tree below root.
func newPlan(root *tree.Node, opts Options) (*plan, error) {
	c, err := collect(root)
	if err != nil {
		return nil, err
	}
	version, err := opts.version(c.whiteouts)
	if err != nil {
		return nil, err
	}
	p := &plan{version: version, entries: c.entries, runs: c.runs}
	p.number(root, c.leaves)
	c.seen, c.leaves = nil, nil
	if err := p.place(p.share()); err != nil {
		return nil, err
	}
	return p, nil
}

// number gives every inode its number, breadth first: a directory's entries in byte order, one
// directory after the other in the order of their own numbers.
func (p *plan) number(root *tree.Node, leaves []leaf) {
	p.inodes = make([]inode, 1, len(p.runs)+len(leaves))
	p.inodes[0] = inode{node: root}
	for i := 0; i < len(p.inodes); i++ {
		if p.inodes[i].node.Kind != tree.Directory {
			continue
		}
		p.inodes[i].nlink = 2
		r := p.runs[p.inodes[i].run]
		for at := r.first; at < r.first+r.count; at++ {
			e := &p.entries[at]
			index := uint32(len(p.inodes))
			switch {
			case e.node == nil && e.name == ".":
				e.ref = uint32(i)
			case e.node == nil:
				e.ref = p.inodes[i].parent
			case e.node.Kind == tree.Directory:
				p.inodes[i].nlink++
				p.inodes = append(p.inodes, inode{node: e.node, parent: uint32(i), run: e.ref})
				e.ref = index
			case leaves[e.ref].home == at:
				l := &leaves[e.ref]
				l.ref = index
				in := inode{node: e.node, parent: uint32(i), nlink: linksOf(e.node, l.names)}
				switch {
				case l.stub:
					in.flags = isStub
				case isWhiteout(e.node):
					in.flags = isEscapedWhiteout
					p.inodes[i].flags |= holdsWhiteouts
				case plainFile(e.node):
					in.flags = isPlain
				}
				p.inodes = append(p.inodes, in)
			}
		}
	}
	for i := range p.entries {
		if e := &p.entries[i]; e.node != nil && e.node.Kind != tree.Directory {
			e.ref = leaves[e.ref].ref
		}
	}
	p.survey()
}

// linksOf returns the link count of a file with so many names.
func linksOf(n *tree.Node, names uint32) uint32 {
	if n.Nlink != 0 || n.Explicit&tree.ExplicitNlink != 0 {
		return n.Nlink
	}
	return names
}

// survey finds the earliest time, which compact inodes have, and whether there are ACLs.
func (p *plan) survey() {
	p.minTime = p.inodes[0].node.Mtime
	for i := range p.inodes {
		n := p.inodes[i].node
		if t := n.Mtime; t.Sec < p.minTime.Sec || t.Sec == p.minTime.Sec && t.Nsec < p.minTime.Nsec {
			p.minTime = t
		}
		for _, x := range n.Xattrs {
			p.hasACL = p.hasACL || x.Name == nameACLAccess || x.Name == nameACLDefault
		}
	}
}

// place decides where each inode goes.
func (p *plan) place(s *sharing) error {
	pos := uint64(erofs.SuperOffset + erofs.SuperSize)
	var buf attrs
	for i := range p.inodes {
		in := &p.inodes[i]
		p.shape(in)
		if err := p.refer(i, s, &buf); err != nil {
			return err
		}
		if p.fitsCompact(in) {
			in.flags |= isCompact
		}
		start := in.padTail(roundUp(pos, erofs.SlotSize))
		in.pad = uint16(start - pos)
		in.nid = start / erofs.SlotSize
		pos = start + in.headerSize() + uint64(in.xattrSize) + uint64(in.tail)
		p.dataBlocks += uint64(in.blocks)
	}
	p.shared = s.list
	p.inodesEnd = roundUp(pos, erofs.SlotSize)
	p.sharedEnd = p.inodesEnd + s.size
	p.dataStart = roundUp(p.sharedEnd, blockSize)
	if blocks := p.size() / blockSize; blocks > 1<<32-1 {
		return fmt.Errorf("an image of %d blocks: EROFS can't address more than 2^32", blocks)
	}
	return nil
}

// size returns the image's size in bytes.
func (p *plan) size() uint64 { return p.dataStart + p.dataBlocks*blockSize }

func (in *inode) headerSize() uint64 {
	if in.flags&isCompact != 0 {
		return erofs.CompactSize
	}
	return erofs.ExtendedSize
}

// mode returns the inode's i_mode.
func (in *inode) mode() uint16 {
	if in.flags&isEscapedWhiteout != 0 {
		return erofs.ModeRegular | in.node.Mode
	}
	return modeOf(in.node)
}

// size returns the inode's i_size. Devices have none, whatever their node says.
func (in *inode) size() uint64 {
	switch n := in.node; n.Kind {
	case tree.Directory:
		return uint64(in.blocks)*blockSize + uint64(in.tail)
	case tree.Symlink:
		return uint64(len(n.Target))
	case tree.Regular:
		return n.Size
	default:
		return 0
	}
}

// fitsCompact reports whether the 32-byte form can say everything about the inode.
func (p *plan) fitsCompact(in *inode) bool {
	n, size := in.node, in.size()
	if size == 0 && in.flags&isEscapedWhiteout == 0 && n.Kind != tree.Directory {
		size = n.Size // a device's size isn't written, but mkcomposefs lets it count here
	}
	return n.Mtime == p.minTime && in.nlink <= 1<<16-1 && n.UID <= 1<<16-1 && n.GID <= 1<<16-1 && size <= 1<<32-1
}

// shape works out how many of the inode's data are whole blocks and how many follow the inode.
func (p *plan) shape(in *inode) {
	switch n := in.node; {
	case n.Kind == tree.Directory:
		in.blocks, in.tail = dirShape(p.entriesOf(in))
	case n.Kind == tree.Symlink:
		in.tail = uint16(len(n.Target))
	case external(n):
		_, chunks := chunking(n.Size)
		in.tail = uint16(chunks * 4)
	case n.Kind == tree.Regular:
		in.blocks, in.tail = uint32(n.Size/blockSize), uint16(n.Size%blockSize)
		if in.tail > blockSize/2 {
			in.blocks, in.tail = in.blocks+1, 0
		}
	}
}

// padTail returns where the inode starts if it may start at pos: such that its tail doesn't cross
// a block boundary. Where that can't be had, the tail becomes a block.
func (in *inode) padTail(pos uint64) uint64 {
	head := in.headerSize() + uint64(in.xattrSize)
	if in.node.Kind == tree.Symlink {
		// Inode and target share a block, because Linux before 6.12 demands it.
		size := head + uint64(in.tail)
		if size >= blockSize {
			in.blocks, in.tail = in.blocks+1, 0
		}
		if pos/blockSize != (pos+size-1)/blockSize {
			return roundUp(pos, blockSize)
		}
		return pos
	}
	tail := uint64(in.tail)
	room := blockSize - (pos+head)%blockSize
	if room >= tail {
		return pos
	}
	moved := pos + roundUp(room, erofs.SlotSize)
	if tail <= blockSize-(moved+head)%blockSize {
		return moved
	}
	in.blocks, in.tail = in.blocks+1, 0
	return roundUp(pos, blockSize)
}
