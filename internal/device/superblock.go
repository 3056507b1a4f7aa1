package device

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Superblock is what a file system says of itself. Nothing of it is proven.
type Superblock struct {
	Type  string // ext4 (also ext2 and ext3, which its driver mounts), xfs, btrfs; "" for none of these
	Label string
	UUID  string // in lower case
	Size  int64  // in bytes
	// BlockSize is ext4's, in bytes; 0 for the others.
	BlockSize int64
	// Verity reports that files may carry fs-verity (ext4's feature of that name; btrfs always).
	Verity bool
	// Damaged reports that the file system noticed errors in itself (ext4's error flag).
	Damaged bool
}

// The places of superblocks: ext2/3/4 has 1 KiB at 1 KiB, xfs a sector at 0, btrfs 4 KiB at 64 KiB
// (fs/ext4/ext4.h, fs/xfs/libxfs/xfs_format.h, include/uapi/linux/btrfs_tree.h).
const (
	extOffset   = 1 << 10
	extSize     = 1 << 10
	xfsSize     = 512
	btrfsOffset = 64 << 10
	btrfsSize   = 4 << 10
)

// Probe reads the superblock of the file system in r, a device or an image of one. A file system
// that it doesn't know, or none, gives the zero Superblock; the error is one of reading.
func Probe(r io.ReaderAt) (Superblock, error) {
	buf := make([]byte, extOffset+extSize)
	n, err := readUpTo(r, buf, 0)
	if err != nil {
		return Superblock{}, err
	}
	if s, ok := parseXFS(buf[:n]); ok {
		return s, nil
	}
	if n == len(buf) {
		if s, ok := parseExt(buf[extOffset:]); ok {
			return s, nil
		}
	}
	buf = make([]byte, btrfsSize)
	if n, err = readUpTo(r, buf, btrfsOffset); err != nil {
		return Superblock{}, err
	}
	s, _ := parseBtrfs(buf[:n])
	return s, nil
}

// readUpTo fills buf from offset as far as there is something.
func readUpTo(r io.ReaderAt, buf []byte, offset int64) (int, error) {
	n, err := r.ReadAt(buf, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, fmt.Errorf("read %d bytes at %d: %w", len(buf), offset, err)
	}
	return n, nil
}

// The fields of ext4's superblock that count here (struct ext4_super_block).
const (
	extBlocksLow, extLogBlockSize, extMagic, extState = 0x04, 0x18, 0x38, 0x3a
	extIncompat, extROCompat, extUUID, extLabel       = 0x60, 0x64, 0x68, 0x78
	extBlocksHigh                                     = 0x150

	extMagicValue         = 0xef53
	extStateError         = 0x2    // EXT4_ERROR_FS
	extIncompatJournalDev = 0x8    // a journal that lies outside of its file system
	extIncompat64bit      = 0x80   // there are high halves
	extROCompatVerity     = 0x8000 // EXT4_FEATURE_RO_COMPAT_VERITY
)

func parseExt(b []byte) (Superblock, bool) {
	le16, le32 := binary.LittleEndian.Uint16, binary.LittleEndian.Uint32
	if len(b) < extSize || le16(b[extMagic:]) != extMagicValue {
		return Superblock{}, false
	}
	incompat, shift := le32(b[extIncompat:]), le32(b[extLogBlockSize:])
	if incompat&extIncompatJournalDev != 0 || shift > 6 { // blocks of 1 to 64 KiB
		return Superblock{}, false
	}
	blocks := uint64(le32(b[extBlocksLow:]))
	if incompat&extIncompat64bit != 0 {
		blocks |= uint64(le32(b[extBlocksHigh:])) << 32
	}
	return Superblock{
		Type: "ext4", Label: text(b[extLabel : extLabel+16]), UUID: uuid(b[extUUID:]),
		Size: bytesOf(blocks, 1<<(10+shift)), BlockSize: 1 << (10 + shift),
		Verity: le32(b[extROCompat:])&extROCompatVerity != 0, Damaged: le16(b[extState:])&extStateError != 0,
	}, true
}

func parseXFS(b []byte) (Superblock, bool) {
	if len(b) < xfsSize || string(b[:4]) != "XFSB" {
		return Superblock{}, false
	}
	be := binary.BigEndian
	blockSize := be.Uint32(b[4:])
	if blockSize < 512 || blockSize > 64<<10 {
		return Superblock{}, false
	}
	return Superblock{
		Type: "xfs", Label: text(b[108 : 108+12]), UUID: uuid(b[32:]), Size: bytesOf(be.Uint64(b[8:]), uint64(blockSize)),
	}, true
}

func parseBtrfs(b []byte) (Superblock, bool) {
	if len(b) < btrfsSize || string(b[0x40:0x48]) != "_BHRfS_M" {
		return Superblock{}, false
	}
	return Superblock{
		Type: "btrfs", Label: text(b[0x12b : 0x12b+256]), UUID: uuid(b[0x20:]),
		Size: bytesOf(binary.LittleEndian.Uint64(b[0x70:]), 1), Verity: true,
	}, true
}

// bytesOf multiplies; a size that no disk has is 0, "not known".
func bytesOf(blocks, size uint64) int64 {
	if blocks > 1<<62/size {
		return 0
	}
	return int64(blocks * size)
}

// text returns a field up to its zero byte; "" where that isn't UTF-8.
func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	if !utf8.Valid(b) {
		return ""
	}
	return string(b)
}

func uuid(b []byte) string {
	return strings.ToLower(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16]))
}
