package erofs

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Image reads an image that is held in memory.
//
// What it hands out is counted against the image's size, each part once: the parts of an image
// that was written by a tool don't overlap, and those of an image made to exhaust its reader do. So
// ask for each inode, and for its attributes and data, once.
type Image struct {
	data   []byte
	super  Superblock
	left   uint64
	shared map[uint32]Xattr
	names  *xattrNames
}

// Open reads the superblock of an image. data must stay as it is while the Image is in use.
func Open(data []byte) (*Image, error) {
	if len(data) < SuperOffset+SuperSize || len(data)%BlockSize != 0 {
		return nil, fmt.Errorf("EROFS image of %d bytes: not a whole number of blocks", len(data))
	}
	super, err := ParseSuperblock(data[SuperOffset:])
	if err != nil {
		return nil, err
	}
	if uint64(super.Blocks)*BlockSize != uint64(len(data)) {
		return nil, fmt.Errorf("EROFS image of %d bytes: its superblock says %d blocks", len(data), super.Blocks)
	}
	return &Image{data: data, super: super, left: uint64(len(data)), shared: make(map[uint32]Xattr), names: newXattrNames()}, nil
}

// Super returns the superblock.
func (im *Image) Super() Superblock { return im.super }

var errClaimed = errors.New("parts of the image overlap")

// claim counts n bytes as handed out.
func (im *Image) claim(n uint64) error {
	if n > im.left {
		return errClaimed
	}
	im.left -= n
	return nil
}

// slice returns n bytes of the image from offset on.
func (im *Image) slice(offset, n uint64) ([]byte, error) {
	size := uint64(len(im.data))
	if offset > size || n > size-offset {
		return nil, fmt.Errorf("bytes %d to %d lie beyond the image's end", offset, offset+n)
	}
	return im.data[offset:][:n], nil
}

// offset returns where an inode lies.
func (im *Image) offset(nid uint64) (uint64, error) {
	size := uint64(len(im.data))
	if nid > size/SlotSize {
		return 0, fmt.Errorf("inode %d lies beyond the image's end", nid)
	}
	return uint64(im.super.MetaBlock)*BlockSize + nid*SlotSize, nil
}

// Inode reads an inode.
func (im *Image) Inode(nid uint64) (Inode, error) {
	at, err := im.offset(nid)
	if err != nil {
		return Inode{}, err
	}
	if at > uint64(len(im.data)) {
		return Inode{}, fmt.Errorf("inode %d lies beyond the image's end", nid)
	}
	i, err := parseInode(im.data[at:], nid, &im.super)
	if err != nil {
		return Inode{}, err
	}
	return i, im.claim(i.HeaderSize())
}

// after returns where what follows an inode starts: its attributes, or with them the tail.
func (im *Image) after(i *Inode, withXattrs bool) (uint64, error) {
	at, err := im.offset(i.NID)
	at += i.HeaderSize()
	if withXattrs {
		at += i.XattrSize()
	}
	return at, err
}

// Data returns the data of a flat inode: whole blocks, then what follows the inode. Both are parts of
// the image.
func (im *Image) Data(i *Inode) (blocks, tail []byte, err error) {
	whole, rest := i.Size, uint64(0)
	switch i.Layout {
	case FlatPlain:
	case FlatInline:
		rest = i.Size % BlockSize
		whole -= rest
		if rest == 0 {
			return nil, nil, fmt.Errorf("inode %d: nothing follows it, though its layout says so", i.NID)
		}
	default:
		return nil, nil, fmt.Errorf("inode %d: its data aren't in the image", i.NID)
	}
	if whole > 0 {
		if blocks, err = im.slice(uint64(i.Union)*BlockSize, whole); err != nil {
			return nil, nil, fmt.Errorf("inode %d: data: %w", i.NID, err)
		}
	}
	if rest > 0 {
		at, err := im.after(i, true)
		if err != nil {
			return nil, nil, err
		}
		if at%BlockSize+rest > BlockSize {
			return nil, nil, fmt.Errorf("inode %d: the data after it cross a block boundary", i.NID)
		}
		if tail, err = im.slice(at, rest); err != nil {
			return nil, nil, fmt.Errorf("inode %d: data: %w", i.NID, err)
		}
	}
	return blocks, tail, im.claim(i.Size)
}

// Dirents calls room with the number of entries that a directory says it has, then yield for each of them, in ascending order of
// the names, and stops at the first error.
func (im *Image) Dirents(i *Inode, room func(entries int), yield func(Dirent) error) error {
	blocks, tail, err := im.Data(i)
	if err != nil {
		return err
	}
	entries := countDirents(tail)
	for at := 0; at < len(blocks); at += BlockSize {
		entries += countDirents(blocks[at:])
	}
	room(entries)
	prev := ""
	for len(blocks) > 0 {
		n := min(len(blocks), BlockSize)
		if prev, err = parseDirents(blocks[:n], prev, yield); err != nil {
			return fmt.Errorf("inode %d: %w", i.NID, err)
		}
		blocks = blocks[n:]
	}
	if len(tail) > 0 {
		if _, err = parseDirents(tail, prev, yield); err != nil {
			return fmt.Errorf("inode %d: %w", i.NID, err)
		}
	}
	return nil
}

// AppendXattrs reads an inode's attributes, in the image's order: its own, then the shared ones. It adds them to list.
func (im *Image) AppendXattrs(list []Xattr, i *Inode) ([]Xattr, error) {
	if i.XattrCount == 0 {
		return list, nil
	}
	at, err := im.after(i, false)
	if err != nil {
		return nil, err
	}
	body, err := im.slice(at, i.XattrSize())
	if err != nil {
		return nil, fmt.Errorf("inode %d: attributes: %w", i.NID, err)
	}
	if err := im.claim(i.XattrSize()); err != nil {
		return nil, err
	}
	refs, own := int(body[4])*XattrAlign, body[XattrHeaderSize:]
	if refs > len(own) {
		return nil, fmt.Errorf("inode %d: %d shared attributes in %d bytes", i.NID, body[4], len(own))
	}
	shared, own := own[:refs], own[refs:]
	for len(own) > 0 {
		x, n, err := im.names.parse(own)
		if err != nil {
			return nil, fmt.Errorf("inode %d: %w", i.NID, err)
		}
		list = append(list, x)
		own = own[min(n, uint64(len(own))):]
	}
	for ; len(shared) > 0; shared = shared[XattrAlign:] {
		x, err := im.sharedXattr(binary.LittleEndian.Uint32(shared))
		if err != nil {
			return nil, fmt.Errorf("inode %d: shared %w", i.NID, err)
		}
		list = append(list, x)
	}
	return list, nil
}

// sharedXattr reads a shared attribute, which lies ref 4-byte units into its area.
func (im *Image) sharedXattr(ref uint32) (Xattr, error) {
	if x, ok := im.shared[ref]; ok {
		return x, nil
	}
	at := uint64(im.super.XattrBlock)*BlockSize + uint64(ref)*XattrAlign
	if at > uint64(len(im.data)) {
		return Xattr{}, fmt.Errorf("attribute %d lies beyond the image's end", ref)
	}
	x, n, err := im.names.parse(im.data[at:])
	if err != nil {
		return Xattr{}, err
	}
	im.shared[ref] = x
	return x, im.claim(n)
}
