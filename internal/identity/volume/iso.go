package volume

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

// iso is an ISO 9660 file system (ECMA-119), with the longer names of Joliet and of Rock Ridge (IEEE
// P1282 over SUSP), open for reading.
type iso struct {
	r     io.ReaderAt
	label string
	roots []isoRoot
}

type isoRoot struct {
	at, size int64
	joliet   bool
}

// The medium's layout: blocks of 2048 bytes, descriptors from block 16 on.
const (
	isoBlock       = 2048
	isoFirst       = 16
	isoDescriptors = 16
	isoRootRecord  = 156
	isoMinRecord   = 33
)

var errNotISO = errors.New("it isn't an ISO 9660 file system")

// openISO reads the volume descriptors.
func openISO(r io.ReaderAt) (*iso, error) {
	i := &iso{r: r}
	b := make([]byte, isoBlock)
	for n := range int64(isoDescriptors) {
		if _, err := io.ReadFull(io.NewSectionReader(r, (isoFirst+n)*isoBlock, isoBlock), b); err != nil || string(b[1:6]) != "CD001" {
			break
		}
		kind := b[0]
		if kind == 255 {
			break
		}
		joliet := kind == 2 && string(b[88:90]) == "%/" && (b[90] == '@' || b[90] == 'C' || b[90] == 'E')
		if kind != 1 && !joliet || binary.LittleEndian.Uint16(b[128:]) != isoBlock {
			continue
		}
		label := string(b[40:72])
		if joliet {
			label = ucs2(b[40:72])
		}
		// Joliet cuts a label at 16 characters, and the other may hold capitals only.
		if label = strings.TrimRight(label, " \x00"); i.label == "" {
			i.label = label
		}
		record := b[isoRootRecord:]
		i.roots = append(i.roots, isoRoot{
			at: int64(binary.LittleEndian.Uint32(record[2:])) * isoBlock, size: int64(binary.LittleEndian.Uint32(record[10:])), joliet: joliet,
		})
	}
	if len(i.roots) == 0 {
		return nil, errNotISO
	}
	return i, nil
}

// list returns the label and the regular files of the root directory, under all of their names.
func (i *iso) list() (string, []entry, error) {
	var files []entry
	for _, root := range i.roots {
		dir := make([]byte, min(root.size, dirMax))
		if n, err := i.r.ReadAt(dir, root.at); n < len(dir) {
			return "", nil, fmt.Errorf("read its root directory: %w", err)
		}
		for at := 0; at < len(dir); {
			length := int(dir[at])
			if length == 0 { // no record goes over the end of a block
				at += isoBlock - at%isoBlock
				continue
			}
			if length < isoMinRecord || at+length > len(dir) {
				return "", nil, errors.New("its root directory is damaged")
			}
			if e, ok := isoEntry(dir[at:at+length], root.joliet); ok {
				files = append(files, e)
			}
			at += length
		}
	}
	return i.label, files, nil
}

// isoEntry reads a directory's record; ok is false for what isn't a regular file in one piece.
func isoEntry(record []byte, joliet bool) (e entry, ok bool) {
	const directory, associated, more = 0x02, 0x04, 0x80
	nameEnd := isoMinRecord + int(record[32])
	if record[25]&(directory|associated|more) != 0 || nameEnd > len(record) {
		return entry{}, false
	}
	name := string(record[isoMinRecord:nameEnd])
	if joliet {
		name = ucs2(record[isoMinRecord:nameEnd])
	}
	name, _, _ = strings.Cut(name, ";") // the version
	e = entry{
		names: []string{strings.TrimSuffix(name, ".")},
		first: binary.LittleEndian.Uint32(record[2:]) + uint32(record[1]),
		size:  int64(binary.LittleEndian.Uint32(record[10:])),
	}
	if !joliet {
		e.names = append(e.names, rockRidgeName(record[min(nameEnd+nameEnd%2, len(record)):]))
	}
	return e, true
}

// rockRidgeName returns the name in a record's system use area; "" where there is none, or where it
// goes on elsewhere: the names that are looked for are short.
func rockRidgeName(area []byte) string {
	var name strings.Builder
	for len(area) >= 4 {
		length := int(area[2])
		if length < 4 || length > len(area) {
			break
		}
		if field := area[:length]; string(field[:2]) == "NM" && length > 5 && field[4]&^1 == 0 {
			name.Write(field[5:])
		}
		area = area[length:]
	}
	return name.String()
}

func (i *iso) read(e entry) ([]byte, error) {
	b := make([]byte, e.size)
	if n, err := i.r.ReadAt(b, int64(e.first)*isoBlock); n < len(b) {
		return nil, fmt.Errorf("the file ends early: %w", err)
	}
	return b, nil
}

// ucs2 decodes Joliet's big-endian characters.
func ucs2(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		units = append(units, binary.BigEndian.Uint16(b))
	}
	return strings.TrimRight(string(utf16.Decode(units)), " \x00")
}
