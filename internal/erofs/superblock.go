package erofs

import (
	"encoding/binary"
	"fmt"
)

const (
	superMagic = 0xE0F5E1E2

	// FeatureMtime says that inode times are modification times.
	FeatureMtime = 0x2
	// FeatureXattrFilter says that attribute headers carry a name filter.
	FeatureXattrFilter = 0x4
)

// Superblock is what composefs uses of the 128 bytes at SuperOffset.
type Superblock struct {
	FeatureCompat uint32
	RootNID       uint16
	Inodes        uint64
	// BuildSec and BuildNsec are the time that every compact inode has.
	BuildSec  int64
	BuildNsec uint32
	// Blocks is the image's size in blocks.
	Blocks uint32
	// MetaBlock is the block that nids count from, XattrBlock the one that shared attributes do.
	MetaBlock, XattrBlock uint32
}

// Append adds the superblock's 128 bytes to b.
func (s *Superblock) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, superMagic)
	b = le.AppendUint32(b, 0) // checksum: none without its feature bit
	b = le.AppendUint32(b, s.FeatureCompat)
	b = append(b, blockBits, 0) // no extra slots
	b = le.AppendUint16(b, s.RootNID)
	b = le.AppendUint64(b, s.Inodes)
	b = le.AppendUint64(b, uint64(s.BuildSec))
	b = le.AppendUint32(b, s.BuildNsec)
	b = le.AppendUint32(b, s.Blocks)
	b = le.AppendUint32(b, s.MetaBlock)
	b = le.AppendUint32(b, s.XattrBlock)
	return append(b, make([]byte, 80)...) // UUID, volume name, incompatible features, devices, compression: none
}

// ParseSuperblock reads a superblock. It refuses other block sizes and every incompatible
// feature: composefs images have none.
func ParseSuperblock(b []byte) (Superblock, error) {
	if len(b) < SuperSize {
		return Superblock{}, fmt.Errorf("EROFS superblock: %d bytes, want %d", len(b), SuperSize)
	}
	le := binary.LittleEndian
	if magic := le.Uint32(b); magic != superMagic {
		return Superblock{}, fmt.Errorf("EROFS superblock: magic %#x, want %#x", magic, uint32(superMagic))
	}
	if b[12] != blockBits {
		return Superblock{}, fmt.Errorf("EROFS superblock: blocks of 2^%d bytes, want 2^%d", b[12], blockBits)
	}
	if features := le.Uint32(b[80:]); features != 0 {
		return Superblock{}, fmt.Errorf("EROFS superblock: incompatible features %#x", features)
	}
	return Superblock{
		FeatureCompat: le.Uint32(b[8:]),
		RootNID:       le.Uint16(b[14:]),
		Inodes:        le.Uint64(b[16:]),
		BuildSec:      int64(le.Uint64(b[24:])),
		BuildNsec:     le.Uint32(b[32:]),
		Blocks:        le.Uint32(b[36:]),
		MetaBlock:     le.Uint32(b[40:]),
		XattrBlock:    le.Uint32(b[44:]),
	}, nil
}
