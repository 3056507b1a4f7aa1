package composefs

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/bits"

	"github.com/powernode/powernode-agent/internal/erofs"
	"github.com/powernode/powernode-agent/internal/tree"
)

// The fixed fields of a dump's line, in order; extended attributes follow.
const (
	fieldPath = iota
	fieldSize
	fieldMode
	fieldNlink
	fieldUID
	fieldGID
	fieldRdev
	fieldMtime
	fieldPayload
	fieldContent
	fieldDigest
	fieldCount
)

// line is a dump's line, split. Fields that it lacks are empty.
type line struct {
	fields [fieldCount][]byte
	xattrs []byte
	// link says that the line gives a file a further name: the mode starts with "@", and the
	// payload is the path of the file.
	link bool
}

func splitLine(text []byte) (line, error) {
	var l line
	if bytes.IndexByte(text, 0) >= 0 {
		return l, errors.New("a NUL; write it as \\x00")
	}
	for i := range l.fields {
		l.fields[i], text, _ = bytes.Cut(text, []byte{' '})
	}
	l.xattrs = text
	if mode, ok := bytes.CutPrefix(l.fields[fieldMode], []byte{'@'}); ok {
		l.fields[fieldMode], l.link = mode, true
	}
	return l, nil
}

// optional returns a field that "-" stands for the absence of, unescaped. It may be a part of the
// line, which the next one overwrites.
func (l *line) optional(field int) (value []byte, ok bool, err error) {
	value = l.fields[field]
	if string(value) == "-" {
		return nil, false, nil
	}
	if bytes.IndexByte(value, '\\') >= 0 {
		value, err = unescape(nil, value)
	}
	return value, true, err
}

// kind reads the mode. An inode holds 16 bits of it; mkcomposefs, too, drops what is above.
func (l *line) kind() (tree.Kind, uint16, error) {
	mode, err := parseNumber(l.fields[fieldMode], 8)
	if err != nil {
		return 0, 0, fmt.Errorf("mode: %w", err)
	}
	kind, ok := kindOf(uint16(mode))
	if mode > math.MaxUint32 || !ok {
		return 0, 0, fmt.Errorf("mode %#o has no known file type", mode)
	}
	return kind, uint16(mode) & 0o7777, nil
}

// kindOf returns the kind for an st_mode.
func kindOf(mode uint16) (tree.Kind, bool) {
	switch mode & erofs.ModeType {
	case erofs.ModeDir:
		return tree.Directory, true
	case erofs.ModeRegular:
		return tree.Regular, true
	case erofs.ModeSymlink:
		return tree.Symlink, true
	case erofs.ModeChar:
		return tree.CharDevice, true
	case erofs.ModeBlock:
		return tree.BlockDevice, true
	case erofs.ModeFIFO:
		return tree.FIFO, true
	case erofs.ModeSocket:
		return tree.Socket, true
	}
	return 0, false
}

// node reads everything but the name and the extended attributes.
func (l *line) node() (*tree.Node, error) {
	n := new(tree.Node)
	var err error
	if n.Kind, n.Mode, err = l.kind(); err != nil {
		return nil, err
	}
	size, err := parseNumber(l.fields[fieldSize], 10)
	if err != nil {
		return nil, fmt.Errorf("size: %w", err)
	}
	var nlink, rdev uint32
	for _, f := range []struct {
		name  string
		field int
		to    *uint32
	}{{"nlink", fieldNlink, &nlink}, {"uid", fieldUID, &n.UID}, {"gid", fieldGID, &n.GID}, {"rdev", fieldRdev, &rdev}} {
		if *f.to, err = parse32(l.fields[f.field]); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	if n.Mtime, err = parseTime(l.fields[fieldMtime]); err != nil {
		return nil, fmt.Errorf("mtime: %w", err)
	}
	if n.Kind == tree.CharDevice || n.Kind == tree.BlockDevice {
		n.Rdev = rdev
	}
	switch {
	case n.Kind == tree.Directory: // its links are counted
	case nlink == 0:
		n.Explicit |= tree.ExplicitNlink
	case nlink > 1: // 1 is what counting gives, unless there are further names: see settle
		n.Nlink = nlink
	}
	return n, l.content(n, size)
}

// content reads what depends on the kind of inode.
func (l *line) content(n *tree.Node, size uint64) error {
	payload, _, err := l.optional(fieldPayload)
	if err != nil {
		return fmt.Errorf("payload: %w", err)
	}
	content, given, err := l.optional(fieldContent)
	if err != nil {
		return fmt.Errorf("content: %w", err)
	}
	if given && uint64(len(content)) != size {
		return fmt.Errorf("content of %d bytes for a size of %d", len(content), size)
	}
	switch n.Kind {
	case tree.Directory:
	case tree.Symlink:
		n.Target = string(payload)
	case tree.Regular:
		n.Size = size
		if len(content) > 0 {
			n.Inline = bytes.Clone(content)
		} else if size > 0 {
			return l.object(n, payload)
		}
	default:
		n.Size = size
	}
	return nil
}

// object reads where a file's content lies and its digest.
func (l *line) object(n *tree.Node, payload []byte) error {
	text, given, err := l.optional(fieldDigest)
	if err != nil {
		return fmt.Errorf("digest: %w", err)
	}
	if given {
		if _, err := hex.Decode(n.Digest[:], text[:min(len(text), 2*digestSize)]); err != nil || len(text) != 2*digestSize {
			return fmt.Errorf("digest %.80q: want 64 hexadecimal digits", text)
		}
	}
	describe(n, given, payload)
	return nil
}

// describe records a file's object: its digest, if it has one, and its path where that isn't the usual.
func describe(n *tree.Node, hasDigest bool, payload []byte) {
	var usual [redirectSize]byte
	switch {
	case n.Digest.IsZero():
		n.Payload = string(payload)
		if hasDigest {
			n.Explicit |= tree.ExplicitDigest
		}
	case len(payload) == 0:
		n.Explicit |= tree.ExplicitPayload
	case !bytes.Equal(payload, appendObjectPath(usual[:0], n.Digest)):
		n.Payload = string(payload)
	}
}

// parseNumber reads a number as C's strtoull does, without its overflow: a minus sign wraps.
func parseNumber(field []byte, base uint64) (uint64, error) {
	digits, negative := bytes.CutPrefix(field, []byte{'-'})
	v, ok := uint64(0), len(digits) > 0
	for _, c := range digits {
		d := uint64(c - '0') // huge for what comes before '0'
		high, low := bits.Mul64(v, base)
		sum, carry := bits.Add64(low, d, 0)
		ok = ok && d < base && high == 0 && carry == 0
		v = sum
	}
	if !ok {
		return 0, fmt.Errorf("invalid number %.40q", field)
	}
	if negative {
		v = -v
	}
	return v, nil
}

// parse32 reads a number of 32 bits; -1 is the largest.
func parse32(field []byte) (uint32, error) {
	v, err := parseNumber(field, 10)
	if signed := int64(v); err == nil && (signed < math.MinInt32 || signed > math.MaxUint32) {
		err = fmt.Errorf("%.40q doesn't fit 32 bits", field)
	}
	return uint32(v), err
}

// parseTime reads seconds and nanoseconds with a dot between them; "1.5" is 5 ns after 1 s.
func parseTime(field []byte) (tree.Time, error) {
	whole, rest, _ := bytes.Cut(field, []byte{'.'})
	sec, err := parseNumber(whole, 10)
	if err != nil {
		return tree.Time{}, err
	}
	nsec, err := parseNumber(rest, 10)
	if err == nil && nsec > 999_999_999 {
		err = fmt.Errorf("%.40q has a second of nanoseconds or more", field)
	}
	return tree.Time{Sec: int64(sec), Nsec: uint32(nsec)}, err
}
