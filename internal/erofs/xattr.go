package erofs

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// Xattr is an extended attribute with its full name. What an Image hands out has a Value that is a
// part of the image.
type Xattr struct {
	Name  string
	Value []byte
}

// xattrPrefixes are the name prefixes that the format has numbers for; 0 is "none". The two ACLs
// are prefixes with nothing after them.
var xattrPrefixes = [...]string{
	"", "user.", "system.posix_acl_access", "system.posix_acl_default", "trusted.", "lustre.", "security.",
}

// lustreIndex is a prefix that C's writer doesn't abbreviate; it is only read.
const lustreIndex = 5

// splitXattrName returns a name's prefix number and what follows the prefix.
func splitXattrName(name string) (uint8, string) {
	for i, prefix := range xattrPrefixes {
		if i == 0 || i == lustreIndex {
			continue
		}
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			return uint8(i), rest
		}
	}
	return 0, name
}

// XattrEntryLen returns the size in bytes of an attribute's entry, with its padding.
func XattrEntryLen(name string, valueLen int) uint64 {
	_, rest := splitXattrName(name)
	return roundUp(uint64(XattrEntrySize+len(rest)+valueLen), XattrAlign)
}

// AppendXattrEntry adds an attribute's entry with its padding to b.
func AppendXattrEntry(b []byte, name string, value []byte) []byte {
	index, rest := splitXattrName(name)
	start := len(b)
	b = append(b, uint8(len(rest)), index)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
	b = append(b, rest...)
	b = append(b, value...)
	for (len(b)-start)%XattrAlign != 0 {
		b = append(b, 0)
	}
	return b
}

// AppendXattrHeader adds the 12 bytes before an inode's attributes to b: the name filter, and how
// many references to shared attributes follow.
func AppendXattrHeader(b []byte, filter uint32, shared uint8) []byte {
	b = binary.LittleEndian.AppendUint32(b, filter)
	return append(b, shared, 0, 0, 0, 0, 0, 0, 0)
}

// filterSeed is EROFS_XATTR_FILTER_SEED.
const filterSeed = 0x25BBE08F

// XattrFilterBit returns an attribute's bit in the name filter. A filter has the bit clear if an
// attribute is there.
func XattrFilterBit(name string) uint32 {
	index, rest := splitXattrName(name)
	return 1 << (xxh32(rest, filterSeed+uint32(index)) & 31)
}

// xattrNames keeps the names that have been put together from prefix and rest: there are few.
type xattrNames struct {
	known map[xattrNameKey]string
	// latest are two of them: nearly every file has the same two.
	latest [2]xattrName
}

func newXattrNames() *xattrNames { return &xattrNames{known: make(map[xattrNameKey]string)} }

type xattrName struct {
	xattrNameKey
	name string
}

type xattrNameKey struct {
	index uint8
	rest  string
}

// xattrNamesLimit bounds how many are kept.
const xattrNamesLimit = 1 << 12

func (names *xattrNames) name(index uint8, rest []byte) string {
	for _, l := range names.latest {
		if l.index == index && l.rest == string(rest) {
			return l.name
		}
	}
	name, ok := names.known[xattrNameKey{index, string(rest)}]
	if !ok {
		name = xattrPrefixes[index] + string(rest)
		if len(names.known) < xattrNamesLimit {
			names.known[xattrNameKey{index, string(rest)}] = name
		}
	}
	names.latest[1], names.latest[0] = names.latest[0], xattrName{xattrNameKey{index, name[len(xattrPrefixes[index]):]}, name}
	return name
}

// parse reads the entry at the start of b and returns its size with the padding.
func (names *xattrNames) parse(b []byte) (Xattr, uint64, error) {
	if len(b) < XattrEntrySize {
		return Xattr{}, 0, fmt.Errorf("attribute entry beyond its area")
	}
	nameLen, index, valueLen := int(b[0]), int(b[1]), int(binary.LittleEndian.Uint16(b[2:]))
	if index >= len(xattrPrefixes) {
		return Xattr{}, 0, fmt.Errorf("attribute with the unknown name prefix %d", index)
	}
	end := XattrEntrySize + nameLen + valueLen
	if end > len(b) {
		return Xattr{}, 0, fmt.Errorf("attribute entry beyond its area")
	}
	rest := b[XattrEntrySize : XattrEntrySize+nameLen]
	name := names.name(uint8(index), rest)
	if name == "" || strings.IndexByte(name, 0) >= 0 {
		return Xattr{}, 0, fmt.Errorf("attribute with the name %q", name)
	}
	return Xattr{Name: name, Value: b[XattrEntrySize+nameLen : end]}, roundUp(uint64(end), XattrAlign), nil
}

// roundUp rounds n up to a multiple of a power of two.
func roundUp(n, unit uint64) uint64 { return (n + unit - 1) &^ (unit - 1) }
