package volume

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

// fat is a FAT file system (Microsoft, "FAT: General Overview of On-Disk Format", 1.03) that is open
// for reading. What isn't needed to read files of its root directory isn't looked at.
type fat struct {
	r            io.ReaderAt
	bits         int   // 12, 16 or 32
	cluster      int64 // bytes of one
	table        int64 // where the first allocation table begins
	tableBytes   int64
	root, rootAt int64 // FAT12 and FAT16: bytes of the root directory, and where it begins
	rootCluster  uint32
	data         int64 // where cluster 2 begins
	clusters     uint32
	bootLabel    string
}

// The bounds of what is read. A directory of this size holds a thousand files with long names.
const (
	dirMax    = 128 << 10
	chainMax  = 1 << 16
	dirRecord = 32
)

var errNotFAT = errors.New("it isn't a FAT file system")

// openFAT reads the boot sector.
func openFAT(r io.ReaderAt) (*fat, error) {
	b := make([]byte, 512)
	if _, err := io.ReadFull(io.NewSectionReader(r, 0, 512), b); err != nil {
		return nil, errNotFAT
	}
	le16, le32 := binary.LittleEndian.Uint16, binary.LittleEndian.Uint32
	sector, perCluster, reserved, tables := int64(le16(b[11:])), int64(b[13]), int64(le16(b[14:])), int64(b[16])
	powers := powerOf2(sector) && sector >= 512 && sector <= 4096 && powerOf2(perCluster)
	if b[510] != 0x55 || b[511] != 0xaa || b[0] != 0xeb && b[0] != 0xe9 || !powers || reserved == 0 || tables == 0 || tables > 4 {
		return nil, errNotFAT
	}
	total, tableSectors := int64(le16(b[19:])), int64(le16(b[22:]))
	if total == 0 {
		total = int64(le32(b[32:]))
	}
	wide := tableSectors == 0
	if wide {
		tableSectors = int64(le32(b[36:]))
	}
	f := &fat{
		r: r, cluster: sector * perCluster, table: reserved * sector, tableBytes: tableSectors * sector,
		root: int64(le16(b[17:])) * dirRecord,
	}
	f.rootAt = f.table + tables*f.tableBytes
	f.data = f.rootAt + (f.root+sector-1)/sector*sector
	count := (total*sector - f.data) / f.cluster
	if tableSectors == 0 || count < 1 || count >= 1<<28 {
		return nil, errNotFAT
	}
	f.clusters = uint32(count)
	label := b[43:54]
	// The number of clusters alone decides how wide the table's entries are.
	switch {
	case wide:
		f.bits, f.rootCluster, label = 32, le32(b[44:]), b[71:82]
	case count < 4085:
		f.bits = 12
	default:
		f.bits = 16
	}
	f.bootLabel = strings.TrimRight(string(label), " \x00")
	return f, nil
}

func powerOf2(n int64) bool { return n > 0 && n&(n-1) == 0 }

// next returns the cluster that follows c in its chain; ok is false at the end.
func (f *fat) next(c uint32) (next uint32, ok bool, err error) {
	at := int64(c) * int64(f.bits) / 8
	b := make([]byte, 4)
	width := int64(f.bits+7) / 8
	if at+width > f.tableBytes {
		return 0, false, errors.New("its allocation table is too short")
	}
	if _, err := f.r.ReadAt(b[:width], f.table+at); err != nil {
		return 0, false, fmt.Errorf("read its allocation table: %w", err)
	}
	n := binary.LittleEndian.Uint32(b)
	switch f.bits {
	case 12:
		if c&1 != 0 {
			n >>= 4
		}
		n &= 0xfff
	case 32:
		n &= 0x0fffffff // the highest four bits aren't part of the number
	}
	end := uint32(1)<<min(f.bits, 28) - 8
	if n >= end {
		return 0, false, nil
	}
	if n < 2 || n >= f.clusters+2 {
		return 0, false, errors.New("a file's chain of clusters leads nowhere")
	}
	return n, true, nil
}

// chain reads the clusters from first on, at most limit bytes.
func (f *fat) chain(first uint32, limit int64) ([]byte, error) {
	if first < 2 || first >= f.clusters+2 {
		return nil, errors.New("a file's chain of clusters begins nowhere")
	}
	var out []byte
	for c, steps := first, 0; int64(len(out)) < limit; steps++ {
		if steps > chainMax {
			return nil, errors.New("a file's chain of clusters has no end")
		}
		part := make([]byte, min(f.cluster, limit-int64(len(out))))
		n, err := f.r.ReadAt(part, f.data+int64(c-2)*f.cluster)
		if n < len(part) {
			return nil, fmt.Errorf("read a cluster: %w", err)
		}
		out = append(out, part...)
		next, ok, err := f.next(c)
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		c = next
	}
	return out, nil
}

// rootDir returns the bytes of the root directory.
func (f *fat) rootDir() ([]byte, error) {
	if f.bits == 32 {
		return f.chain(f.rootCluster, dirMax)
	}
	b := make([]byte, min(f.root, dirMax))
	if n, err := f.r.ReadAt(b, f.rootAt); n < len(b) {
		return nil, fmt.Errorf("read its root directory: %w", err)
	}
	return b, nil
}

// The attributes of a directory's record.
const (
	fatVolume    = 0x08
	fatDirectory = 0x10
	fatLongName  = 0x0f
)

// list returns the label and the regular files of the root directory.
func (f *fat) list() (label string, files []entry, err error) {
	dir, err := f.rootDir()
	if err != nil {
		return "", nil, err
	}
	label = f.bootLabel
	var long longName
	for ; len(dir) >= dirRecord && dir[0] != 0; dir = dir[dirRecord:] {
		record := dir[:dirRecord]
		switch attributes := record[11]; {
		case record[0] == 0xe5: // deleted
			long = longName{}
			continue
		case attributes&0x3f == fatLongName:
			long.add(record)
			continue
		case attributes&fatVolume != 0:
			label = strings.TrimRight(string(record[:11]), " ") // the newer of the two places
		case attributes&fatDirectory == 0:
			le := binary.LittleEndian
			first := uint32(le.Uint16(record[26:]))
			if f.bits == 32 {
				first |= uint32(le.Uint16(record[20:])) << 16
			}
			files = append(files, entry{names: []string{shortName(record), long.name(record)}, first: first, size: int64(le.Uint32(record[28:]))})
		}
		long = longName{}
	}
	if label == "NO NAME" {
		label = ""
	}
	return label, files, nil
}

func (f *fat) read(e entry) ([]byte, error) {
	if e.size == 0 {
		return nil, nil
	}
	b, err := f.chain(e.first, e.size)
	if err == nil && int64(len(b)) < e.size {
		err = errors.New("the file ends early")
	}
	return b, err
}

func shortName(record []byte) string {
	name, suffix := strings.TrimRight(string(record[:8]), " "), strings.TrimRight(string(record[8:11]), " ")
	if suffix != "" {
		name += "." + suffix
	}
	return name
}

// longName collects the records before a file's own, which hold its long name from the end.
type longName struct {
	units []uint16
	sum   byte
	want  int // the number of the record that comes next
}

func (l *longName) add(record []byte) {
	n := int(record[0] & 0x3f)
	if record[0]&0x40 != 0 {
		*l = longName{sum: record[13], want: n}
	}
	if n == 0 || n != l.want || record[13] != l.sum {
		*l = longName{}
		return
	}
	l.want--
	var units []uint16
	for _, part := range [][]byte{record[1:11], record[14:26], record[28:32]} {
		for ; len(part) > 0; part = part[2:] {
			units = append(units, binary.LittleEndian.Uint16(part))
		}
	}
	l.units = append(units, l.units...)
}

// name returns the long name if it is whole and belongs to record.
func (l *longName) name(record []byte) string {
	var sum byte
	for _, c := range record[:11] {
		sum = sum>>1 | sum<<7
		sum += c
	}
	if len(l.units) == 0 || l.want != 0 || sum != l.sum {
		return ""
	}
	for i, u := range l.units {
		if u == 0 {
			return string(utf16.Decode(l.units[:i]))
		}
	}
	return string(utf16.Decode(l.units))
}
