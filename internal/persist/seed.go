package persist

import (
	"crypto/rand"
	_ "embed" // for the seed
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/klauspost/compress/zstd"
)

//go:generate go run ./mkseed seed.zst

//go:embed seed.zst
var packedSeed []byte

// Label is the label of a file system that was prepared.
const Label = "powernode"

// MinSize is the smallest device that can be prepared, in bytes: the seed's size.
const MinSize = 256 << 20

// seedBlock is the size of its blocks in bytes.
const seedBlock = 4096

// seedMax bounds the seed when it is unpacked.
const seedMax = 16 << 20

// seed is an ext4 of MinSize bytes, as the blocks that it consists of. What is between them is of no
// importance.
type seed struct {
	blockSize int64
	extents   []extent
}

// extent is a run of blocks.
type extent struct {
	offset, length int64  // in bytes
	data           []byte // nil for zeros
}

// readSeed unpacks the seed. Its format is described in mkseed.
func readSeed(packed []byte) (*seed, error) {
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(seedMax))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := r.DecodeAll(packed, nil)
	if err != nil {
		return nil, fmt.Errorf("unpack the seed: %w", err)
	}
	const header, entry = 8 + 12, 12
	if len(b) < header || string(b[:8]) != "PNSEED1\n" {
		return nil, errors.New("unpack the seed: it isn't one")
	}
	le := binary.LittleEndian.Uint32
	size, blocks, count := int64(le(b[8:])), int64(le(b[12:])), int64(le(b[16:]))
	if size != seedBlock || size*blocks != MinSize || count > int64(len(b))/entry || header+count*entry > int64(len(b)) {
		return nil, errors.New("unpack the seed: its size is wrong")
	}
	s, data := &seed{blockSize: size}, b[header+count*entry:]
	for at := int64(0); at < count; at++ {
		e := b[header+at*entry:]
		x := extent{offset: int64(le(e)) * size, length: int64(le(e[4:])) * size}
		if x.offset+x.length > MinSize {
			return nil, errors.New("unpack the seed: it leads out of itself")
		}
		if le(e[8:]) == 1 {
			if x.length > int64(len(data)) {
				return nil, errors.New("unpack the seed: it ends early")
			}
			x.data, data = data[:x.length], data[x.length:]
		}
		s.extents = append(s.extents, x)
	}
	if len(s.extents) == 0 || s.extents[0].offset != 0 || int64(len(s.extents[0].data)) < size {
		return nil, errors.New("unpack the seed: it has no superblock")
	}
	return s, nil
}

// The fields of ext4's superblock that differ from one file system to the next, and its checksum
// (struct ext4_super_block).
const (
	superOffset, superSize                        = 1024, 1024
	sbMagic, sbCompat, sbUUID, sbLabel, sbJournal = 0x38, 0x5c, 0x68, 0x78, 0xe0
	sbHashSeed, sbChecksum                        = 0xec, 0x3fc

	compatHasJournal = 0x4
	groupSize        = 128 << 20 // a block of bitmap has 8 * 4096 bits, for blocks of 4096 bytes
)

// copyTo fills b with what the seed has from offset on; zeros where it has nothing.
func (s *seed) copyTo(b []byte, offset int64) {
	clear(b)
	for _, x := range s.extents {
		from, to := max(x.offset, offset), min(x.offset+int64(len(x.data)), offset+int64(len(b)))
		if from < to {
			copy(b[from-offset:], x.data[from-x.offset:to-x.offset])
		}
	}
}

// identify gives all copies of the superblock an identity of their own: a UUID, and the secret that
// the hashes of directories are made with. The checksums of all other blocks depend on a seed that
// was made from the UUID of mkfs.ext4 and stays (the feature metadata_csum_seed). Times stay, too:
// the clock of a machine that boots for the first time is no better.
func (s *seed) identify() error {
	id := make([]byte, 32)
	if _, err := rand.Read(id); err != nil {
		return err
	}
	for _, u := range [][]byte{id[:16], id[16:]} { // random UUIDs: RFC 9562, 5.4
		u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	}
	s.eachSuper(func(sb []byte) {
		copy(sb[sbUUID:], id[:16])
		copy(sb[sbHashSeed:], id[16:])
	})
	return nil
}

// dropJournal makes a file system for a disk that forgets anyway.
func (s *seed) dropJournal() {
	s.eachSuper(func(sb []byte) {
		le := binary.LittleEndian
		le.PutUint32(sb[sbCompat:], le.Uint32(sb[sbCompat:])&^compatHasJournal)
		le.PutUint32(sb[sbJournal:], 0)
	})
}

// eachSuper changes each copy of the superblock: the first one, and one at the start of every group
// that has one. sparse_super puts them into groups 1 and powers of 3, 5 and 7; the seed ends before
// group 2.
func (s *seed) eachSuper(change func(sb []byte)) {
	for _, place := range []int64{superOffset, groupSize} {
		for _, x := range s.extents {
			if place < x.offset || place+superSize > x.offset+int64(len(x.data)) {
				continue
			}
			sb := x.data[place-x.offset:][:superSize]
			change(sb)
			binary.LittleEndian.PutUint32(sb[sbChecksum:], superChecksum(sb))
		}
	}
}

// superChecksum is the CRC-32C of a superblock without its checksum, without the inversion at the
// end that the usual one has (fs/ext4/super.c, ext4_superblock_csum).
func superChecksum(sb []byte) uint32 {
	return ^crc32.Checksum(sb[:sbChecksum], crc32.MakeTable(crc32.Castagnoli))
}

// wholeSuper reports whether sb is an ext4 superblock with the right checksum.
func wholeSuper(sb []byte) bool {
	le := binary.LittleEndian
	return len(sb) == superSize && le.Uint16(sb[sbMagic:]) == 0xef53 && le.Uint32(sb[sbChecksum:]) == superChecksum(sb)
}
