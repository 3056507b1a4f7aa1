package composefs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/powernode/powernode-agent/internal/erofs"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/tree"
)

// Write writes the image of the tree below root to w, in order and without seeking. It keeps a
// plan of the image in memory, not the image, and leaves the tree alone.
//
// It refuses a tree that the format can't hold, before it writes a byte.
func Write(w io.Writer, root *tree.Node, opts Options) error {
	p, err := layOut(root, opts)
	if err != nil {
		return err
	}
	return p.writeTo(w)
}

func layOut(root *tree.Node, opts Options) (*plan, error) {
	p, err := newPlan(root, opts)
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Input, "", "lay out a composefs image: %w", err)
	}
	return p, nil
}

func (p *plan) writeTo(w io.Writer) error {
	out := &output{w: w, buf: make([]byte, 0, outputSize)}
	p.write(out)
	if out.flush(); out.err != nil {
		return fmt.Errorf("write a composefs image: %w", out.err)
	}
	return nil
}

// Digest returns the fs-verity digest of the image of the tree below root.
func Digest(root *tree.Node, opts Options) (fsverity.Digest, error) {
	h := fsverity.NewHasher()
	if err := Write(h, root, opts); err != nil {
		return fsverity.Digest{}, err
	}
	return h.Sum(), nil
}

// Build returns the image of the tree below root, and its fs-verity digest.
func Build(root *tree.Node, opts Options) ([]byte, fsverity.Digest, error) {
	p, err := layOut(root, opts)
	if err != nil {
		return nil, fsverity.Digest{}, err
	}
	b := builder{image: make([]byte, 0, p.size()), written: make(chan []byte, p.size()/outputSize+2)}
	digest := make(chan fsverity.Digest, 1)
	go b.hash(digest)
	err = p.writeTo(&b)
	close(b.written)
	sum := <-digest
	if err != nil {
		return nil, fsverity.Digest{}, err
	}
	return b.image, sum, nil
}

// builder takes an image into memory, and has what was written hashed meanwhile.
type builder struct {
	image   []byte
	written chan []byte
}

// Write never makes the image move: its size is known.
func (b *builder) Write(p []byte) (int, error) {
	n := len(b.image)
	b.image = append(b.image, p...)
	b.written <- b.image[n:]
	return len(p), nil
}

func (b *builder) hash(digest chan<- fsverity.Digest) {
	var h fsverity.Hasher
	for p := range b.written {
		_, _ = h.Write(p) // never fails
	}
	digest <- h.Sum()
}

// outputSize is how many bytes are gathered for one write: whole blocks, for the hasher's sake.
const outputSize = 64 * 1024

// output gathers bytes and counts them. After an error it swallows the rest.
type output struct {
	w     io.Writer
	buf   []byte
	count uint64 // bytes that have left buf
	err   error
}

func (o *output) pos() uint64 { return o.count + uint64(len(o.buf)) }

// room makes sure that a few hundred bytes more don't make buf grow.
func (o *output) room() {
	if len(o.buf) > outputSize-1024 {
		o.flush()
	}
}

func (o *output) flush() {
	if o.err == nil {
		_, o.err = o.w.Write(o.buf)
	}
	o.count += uint64(len(o.buf))
	o.buf = o.buf[:0]
}

func (o *output) bytes(b []byte) {
	o.room()
	o.buf = append(o.buf, b...)
}

func (o *output) text(s string) {
	o.room()
	o.buf = append(o.buf, s...)
}

func (o *output) zeros(n uint64) {
	o.room()
	for ; n > blockSize; n -= blockSize {
		o.buf = append(o.buf, zeroBlock[:]...)
		o.room()
	}
	o.buf = append(o.buf, zeroBlock[:n]...)
}

// zeroBlock is for padding, and noChunks for the indexes of chunks, which say that none is in the image.
var (
	zeroBlock [blockSize]byte
	noChunks  = [blockSize]byte(bytes.Repeat([]byte{0xff}, blockSize))
)

// align adds zeros up to a multiple of unit.
func (o *output) align(unit uint64) { o.zeros(roundUp(o.pos(), unit) - o.pos()) }

// write writes the image: header and superblock, inodes, shared attributes, whole blocks.
func (p *plan) write(o *output) {
	p.writeSuper(o)
	next := p.dataStart / blockSize
	var buf attrs
	for i := range p.inodes {
		p.writeInode(o, i, uint32(next), &buf)
		next += uint64(p.inodes[i].blocks)
	}
	o.align(erofs.SlotSize)
	for _, a := range p.shared {
		o.room()
		o.buf = erofs.AppendXattrEntry(o.buf, a.name, a.value)
	}
	o.align(blockSize)
	for i := range p.inodes {
		p.writeBlocks(o, &p.inodes[i])
	}
}

func (p *plan) writeSuper(o *output) {
	le := binary.LittleEndian
	flags := uint32(0)
	if p.hasACL {
		flags |= flagHasACL
	}
	o.buf = le.AppendUint32(o.buf, headerMagic)
	o.buf = le.AppendUint32(o.buf, headerVersion)
	o.buf = le.AppendUint32(o.buf, flags)
	o.buf = le.AppendUint32(o.buf, p.version)
	o.zeros(erofs.SuperOffset - o.pos())
	super := erofs.Superblock{
		FeatureCompat: erofs.FeatureMtime | erofs.FeatureXattrFilter,
		RootNID:       uint16(p.inodes[0].nid),
		Inodes:        uint64(len(p.inodes)),
		BuildSec:      p.minTime.Sec,
		BuildNsec:     p.minTime.Nsec,
		Blocks:        uint32(p.dataStart/blockSize + p.dataBlocks),
		MetaBlock:     0,
		XattrBlock:    uint32(p.inodesEnd / blockSize),
	}
	o.buf = super.Append(o.buf)
}

// writeInode writes an inode, its attributes and its tail. Its whole blocks, if any, start at
// the block address next.
func (p *plan) writeInode(o *output, index int, next uint32, buf *attrs) {
	in := &p.inodes[index]
	n := in.node
	o.zeros(uint64(in.pad))
	disk := erofs.Inode{
		Compact: in.flags&isCompact != 0, Mode: in.mode(), XattrCount: uint16(erofs.XattrCountFor(uint64(in.xattrSize))),
		Nlink: in.nlink, UID: n.UID, GID: n.GID, Size: in.size(), Ino: uint32(index), Sec: n.Mtime.Sec, Nsec: n.Mtime.Nsec,
	}
	if in.tail > 0 {
		disk.Layout = erofs.FlatInline
	}
	if in.blocks > 0 {
		disk.Union = next
	}
	switch {
	case n.Kind == tree.CharDevice, n.Kind == tree.BlockDevice:
		disk.Union = n.Rdev // 0 for an escaped whiteout, as its regular file needs it
	case external(n):
		chunkBits, _ := chunking(n.Size)
		disk.Layout = erofs.ChunkBased
		// mkcomposefs puts the 16-bit chunk format over the block address.
		disk.Union = disk.Union&^0xffff | uint32(chunkBits-12)
	}
	o.room()
	o.buf = disk.Append(o.buf)
	p.writeAttrs(o, index, buf)
	p.writeTail(o, in)
}

func (p *plan) writeAttrs(o *output, index int, buf *attrs) {
	in := &p.inodes[index]
	if in.xattrSize == 0 {
		return
	}
	if in.flags&isPlain != 0 {
		o.room()
		o.buf = usualXattrs.append(o.buf, &in.node.Digest)
		return
	}
	list := buf.of(p, index)
	refs := p.refs[in.refs:][:len(list)]
	filter, shared := ^uint32(0), uint8(0)
	for i, a := range list {
		filter &^= erofs.XattrFilterBit(a.name)
		if refs[i] != unshared {
			shared++
		}
	}
	o.buf = erofs.AppendXattrHeader(o.buf, filter, shared)
	// Shared attributes count from the start of the block that their area starts in.
	base := uint32(p.inodesEnd % blockSize / erofs.XattrAlign)
	for _, ref := range refs {
		if ref != unshared {
			o.buf = binary.LittleEndian.AppendUint32(o.buf, base+ref)
		}
	}
	for i, a := range list {
		if refs[i] == unshared {
			o.room()
			o.buf = erofs.AppendXattrEntry(o.buf, a.name, a.value)
		}
	}
}

// writeTail writes the data that follow an inode.
func (p *plan) writeTail(o *output, in *inode) {
	n := in.node
	switch {
	case in.tail == 0:
	case n.Kind == tree.Directory:
		p.writeDirTail(o, in)
	case n.Kind == tree.Symlink:
		o.text(n.Target)
	case external(n):
		o.bytes(noChunks[:in.tail])
	default:
		o.bytes(n.Inline[len(n.Inline)-int(in.tail):])
	}
}

// writeBlocks writes an inode's whole blocks.
func (p *plan) writeBlocks(o *output, in *inode) {
	n := in.node
	switch {
	case in.blocks == 0:
	case n.Kind == tree.Directory:
		p.writeDirBlocks(o, in)
	case n.Kind == tree.Symlink:
		o.text(n.Target)
		o.align(blockSize)
	case external(n):
		// The chunk indexes that didn't fit after the inode: mkcomposefs fills the block.
		o.bytes(noChunks[:])
	default:
		o.bytes(n.Inline[:min(len(n.Inline), blockSize)])
		o.align(blockSize)
	}
}
