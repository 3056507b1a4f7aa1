package erofs

import (
	"encoding/binary"
	"math/bits"
)

// The primes of XXH32.
const (
	prime1 uint32 = 0x9E3779B1
	prime2 uint32 = 0x85EBCA77
	prime3 uint32 = 0xC2B2AE3D
	prime4 uint32 = 0x27D4EB2F
	prime5 uint32 = 0x165667B1
)

// xxh32 is the XXH32 hash, which the attribute name filter is made with. Source: the xxHash
// specification (doc/xxhash_spec.md of Cyan4973/xxHash), whose steps it follows.
func xxh32(s string, seed uint32) uint32 {
	b := []byte(s)
	le := binary.LittleEndian
	acc := seed + prime5
	if len(b) >= 16 {
		lanes := [4]uint32{seed + prime1 + prime2, seed + prime2, seed, seed - prime1}
		for ; len(b) >= 16; b = b[16:] {
			for i := range lanes {
				lanes[i] = bits.RotateLeft32(lanes[i]+le.Uint32(b[4*i:])*prime2, 13) * prime1
			}
		}
		acc = bits.RotateLeft32(lanes[0], 1) + bits.RotateLeft32(lanes[1], 7) +
			bits.RotateLeft32(lanes[2], 12) + bits.RotateLeft32(lanes[3], 18)
	}
	acc += uint32(len(s))
	for ; len(b) >= 4; b = b[4:] {
		acc = bits.RotateLeft32(acc+le.Uint32(b)*prime3, 17) * prime4
	}
	for _, c := range b {
		acc = bits.RotateLeft32(acc+uint32(c)*prime5, 11) * prime1
	}
	acc = (acc ^ acc>>15) * prime2
	acc = (acc ^ acc>>13) * prime3
	return acc ^ acc>>16
}
