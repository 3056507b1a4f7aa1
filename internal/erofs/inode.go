package erofs

import (
	"encoding/binary"
	"fmt"
)

// Layout says where an inode's data is.
type Layout uint16

// The layouts that composefs uses; the others are compressed.
const (
	FlatPlain  Layout = 0 // whole blocks from the block address on
	FlatInline Layout = 2 // as FlatPlain, but the last partial block follows the inode
	ChunkBased Layout = 4 // chunk indexes follow the inode
)

// The file types of st_mode, as S_IFMT masks them.
const (
	ModeType    = 0o170000
	ModeFIFO    = 0o010000
	ModeChar    = 0o020000
	ModeDir     = 0o040000
	ModeBlock   = 0o060000
	ModeRegular = 0o100000
	ModeSymlink = 0o120000
	ModeSocket  = 0o140000
)

// Inode is an inode as it lies on disk, without its attributes and data.
type Inode struct {
	NID    uint64
	Layout Layout
	// Compact is the 32-byte form: 16-bit owner and link count, 32-bit size, no time of its own.
	Compact bool
	Mode    uint16
	// XattrCount is i_xattr_icount: 0, or 1 and the attribute body's 4-byte units after its header.
	XattrCount uint16
	Nlink      uint32
	UID, GID   uint32
	Size       uint64
	// Union is the block address of a flat file, the device number of a device, or the chunk
	// format of a chunk-based file.
	Union uint32
	// Ino is the inode number for 32-bit stat; composefs counts inodes with it.
	Ino  uint32
	Sec  int64
	Nsec uint32
}

// HeaderSize returns the size in bytes of the inode's form.
func (i *Inode) HeaderSize() uint64 {
	if i.Compact {
		return CompactSize
	}
	return ExtendedSize
}

// XattrSize returns the size in bytes of the attributes that follow the inode.
func (i *Inode) XattrSize() uint64 {
	if i.XattrCount == 0 {
		return 0
	}
	return XattrHeaderSize + uint64(i.XattrCount-1)*XattrAlign
}

// XattrCountFor returns the i_xattr_icount of an attribute body of size bytes.
func XattrCountFor(size uint64) uint64 {
	if size == 0 {
		return 0
	}
	return (size-XattrHeaderSize)/XattrAlign + 1
}

// Append adds the inode's 32 or 64 bytes to b. The caller sees to it that the fields fit.
func (i *Inode) Append(b []byte) []byte {
	le := binary.LittleEndian
	format := uint16(i.Layout) << 1
	if !i.Compact {
		format |= 1
	}
	b = le.AppendUint16(b, format)
	b = le.AppendUint16(b, i.XattrCount)
	b = le.AppendUint16(b, i.Mode)
	if i.Compact {
		b = le.AppendUint16(b, uint16(i.Nlink))
		b = le.AppendUint32(b, uint32(i.Size))
		b = le.AppendUint32(b, 0)
		b = le.AppendUint32(b, i.Union)
		b = le.AppendUint32(b, i.Ino)
		b = le.AppendUint16(b, uint16(i.UID))
		b = le.AppendUint16(b, uint16(i.GID))
		return le.AppendUint32(b, 0)
	}
	b = le.AppendUint16(b, 0)
	b = le.AppendUint64(b, i.Size)
	b = le.AppendUint32(b, i.Union)
	b = le.AppendUint32(b, i.Ino)
	b = le.AppendUint32(b, i.UID)
	b = le.AppendUint32(b, i.GID)
	b = le.AppendUint64(b, uint64(i.Sec))
	b = le.AppendUint32(b, i.Nsec)
	b = le.AppendUint32(b, i.Nlink)
	return append(b, make([]byte, 16)...)
}

// parseInode reads the inode at the start of b, which may be longer. A compact inode gets the
// superblock's time.
func parseInode(b []byte, nid uint64, sb *Superblock) (Inode, error) {
	if len(b) < CompactSize {
		return Inode{}, fmt.Errorf("inode %d: beyond the image's end", nid)
	}
	le := binary.LittleEndian
	format := le.Uint16(b)
	i := Inode{
		NID: nid, Layout: Layout(format >> 1), Compact: format&1 == 0,
		XattrCount: le.Uint16(b[2:]), Mode: le.Uint16(b[4:]),
	}
	switch i.Layout {
	case FlatPlain, FlatInline, ChunkBased:
	default:
		return Inode{}, fmt.Errorf("inode %d: format %#x isn't one of composefs's", nid, format)
	}
	if i.Compact {
		i.Nlink = uint32(le.Uint16(b[6:]))
		i.Size = uint64(le.Uint32(b[8:]))
		i.Union = le.Uint32(b[16:])
		i.Ino = le.Uint32(b[20:])
		i.UID, i.GID = uint32(le.Uint16(b[24:])), uint32(le.Uint16(b[26:]))
		i.Sec, i.Nsec = sb.BuildSec, sb.BuildNsec
		return i, nil
	}
	if len(b) < ExtendedSize {
		return Inode{}, fmt.Errorf("inode %d: beyond the image's end", nid)
	}
	i.Size = le.Uint64(b[8:])
	i.Union = le.Uint32(b[16:])
	i.Ino = le.Uint32(b[20:])
	i.UID, i.GID = le.Uint32(b[24:]), le.Uint32(b[28:])
	i.Sec, i.Nsec = int64(le.Uint64(b[32:])), le.Uint32(b[40:])
	i.Nlink = le.Uint32(b[44:])
	return i, nil
}
