// Package erofs reads and encodes the part of the EROFS on-disk format that composefs images use:
// uncompressed, 4096-byte blocks, compact and extended inodes, directories, inline and shared
// extended attributes, inline data, and chunk indexes that stand for holes.
//
// It promises that no input makes it panic, loop, or hold more than a small multiple of the image
// in memory: every offset is checked, and an image whose parts overlap is refused, because together they
// would claim more bytes than there are. It trusts nothing that it reads. It knows nothing of
// overlayfs; what composefs makes of the attributes is package composefs's business.
//
// Source: Linux, fs/erofs/erofs_fs.h and Documentation/filesystems/erofs.rst. Integers are
// little-endian throughout.
package erofs

// Sizes in bytes that the format fixes, or that composefs chose from what it allows.
const (
	BlockSize  = 4096
	blockBits  = 12
	SlotSize   = 32 // inodes start at multiples of it, and a nid counts them
	DirentSize = 12

	SuperOffset = 1024
	SuperSize   = 128

	CompactSize  = 32
	ExtendedSize = 64

	XattrHeaderSize = 12
	XattrEntrySize  = 4
	XattrAlign      = 4
)

// NameMax is the longest name of a directory entry.
const NameMax = 255

// NullAddr is the block address that stands for a hole in a chunk index.
const NullAddr = ^uint32(0)
