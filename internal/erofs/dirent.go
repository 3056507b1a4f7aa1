package erofs

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// The file types of directory entries (Linux's FT_*).
const (
	TypeRegular uint8 = iota + 1
	TypeDir
	TypeChar
	TypeBlock
	TypeFIFO
	TypeSocket
	TypeSymlink
)

// TypeOf returns the directory entry's type for an st_mode, and 0 for one without a known type.
func TypeOf(mode uint16) uint8 {
	switch mode & ModeType {
	case ModeRegular:
		return TypeRegular
	case ModeDir:
		return TypeDir
	case ModeChar:
		return TypeChar
	case ModeBlock:
		return TypeBlock
	case ModeFIFO:
		return TypeFIFO
	case ModeSocket:
		return TypeSocket
	case ModeSymlink:
		return TypeSymlink
	}
	return 0
}

// Dirent is a directory entry.
type Dirent struct {
	Name string
	NID  uint64
	Type uint8
}

// AppendDirent adds the fixed part of a directory entry to b. The names follow the fixed parts of
// all entries of a block; nameOff is where this one's starts, from the block's start.
func AppendDirent(b []byte, nid uint64, nameOff uint16, fileType uint8) []byte {
	b = binary.LittleEndian.AppendUint64(b, nid)
	b = binary.LittleEndian.AppendUint16(b, nameOff)
	return append(b, fileType, 0)
}

// countDirents returns how many entries a block says that it has, which is at most as many as it has room for.
func countDirents(block []byte) int {
	if len(block) < DirentSize {
		return 0
	}
	return min(int(binary.LittleEndian.Uint16(block[8:])), BlockSize) / DirentSize
}

// parseDirents calls yield for each entry of a directory block, whose slice ends where the
// directory does. prev is the last name of the block before; names must ascend throughout, which
// makes them unique, too. It returns the last name.
func parseDirents(block []byte, prev string, yield func(Dirent) error) (string, error) {
	le := binary.LittleEndian
	if len(block) < DirentSize {
		return "", fmt.Errorf("directory block of %d bytes", len(block))
	}
	first := int(le.Uint16(block[8:]))
	if first < DirentSize || first%DirentSize != 0 || first > len(block) {
		return "", fmt.Errorf("directory block whose names start at %d", first)
	}
	names := string(block[first:]) // one string for all: they are kept together, too
	for at := 0; at < first; at += DirentSize {
		start, end := int(le.Uint16(block[at+8:])), len(block)
		last := at+DirentSize == first
		if !last {
			end = int(le.Uint16(block[at+DirentSize+8:]))
		}
		if start < first || end > len(block) || start > end {
			return "", fmt.Errorf("directory entry whose name is at %d to %d of %d bytes", start, end, len(block))
		}
		name := names[start-first : min(end, start+NameMax+1)-first]
		if last {
			// Padding follows the last name of a whole block.
			name, _, _ = strings.Cut(name, "\x00")
		}
		if err := checkName(name); err != nil {
			return "", err
		}
		if name <= prev {
			return "", fmt.Errorf("directory entry %q after %q: names must ascend", name, prev)
		}
		if err := yield(Dirent{Name: name, NID: le.Uint64(block[at:]), Type: block[at+10]}); err != nil {
			return "", err
		}
		prev = name
	}
	return prev, nil
}

func checkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("directory entry without a name")
	case len(name) > NameMax:
		return fmt.Errorf("directory entry %.32q…: a name of more than %d bytes", name, NameMax)
	case strings.IndexByte(name, '/') >= 0 || strings.IndexByte(name, 0) >= 0:
		return fmt.Errorf("directory entry %q: a name with a slash or a NUL", name)
	}
	return nil
}
