package composefs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/tree"
)

// Limits bound what ReadDump takes in. A zero field means the default.
type Limits struct {
	Bytes   int64 // of the dump; by default 2 GiB
	Entries int   // names in the tree; by default 8 million
}

// Bounds of a single line. The longest that composefs can use is well below the first.
const (
	lineLimit = 256 * 1024
	// xattrTextLimit bounds the attributes' text, because looking for duplicates is quadratic.
	xattrTextLimit = 65535
	// xattrSizeLimit is what composefs allows a dump of EROFS's 64 KiB for attributes
	// (LCFS_INODE_EXTERNAL_XATTR_MAX), reckoned with the worst alignment.
	xattrSizeLimit = 65535 / 2
)

// ReadDump reads a tree from composefs's text format for dumps (composefs-dump(5)), as
// mkcomposefs --from-file does. Files with several names become one node with several names.
func ReadDump(r io.Reader, limits Limits) (*tree.Node, error) {
	if limits.Bytes == 0 {
		limits.Bytes = 2 << 30
	}
	if limits.Entries == 0 {
		limits.Entries = 8 << 20
	}
	d := dumpReader{limits: limits, intern: newInterner(), pending: make(map[*tree.Node]int)}
	count, err := d.read(r)
	if err == nil {
		err = d.link()
	}
	var io *ioError
	switch {
	case errors.As(err, &io):
		return nil, fmt.Errorf("read a composefs dump: %w", io.error)
	case err != nil:
		return nil, fault.New(fault.Refuse, fault.Input, "", "read a composefs dump: line %d: %w", count, err)
	}
	return d.root, nil
}

// ioError is an error of the reader that the dump comes from, not of the dump.
type ioError struct{ error }

type dumpReader struct {
	limits  Limits
	root    *tree.Node
	entries int
	// dir is the directory at dirPath, where the last entry went: most often the next goes there, too.
	dir     *tree.Node
	dirPath string
	path    []byte
	links   []dumpLink
	// pending finds the link that a node only holds the place of.
	pending map[*tree.Node]int
	intern  interner
	// key and value are scratch space for an attribute.
	key, value []byte
}

// read reads all lines and returns the number of the last.
func (d *dumpReader) read(r io.Reader) (int, error) {
	in := bufio.NewReaderSize(io.LimitReader(r, d.limits.Bytes+1), lineLimit)
	size := int64(0)
	for count := 1; ; count++ {
		text, err := in.ReadSlice('\n')
		size += int64(len(text))
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return count, fmt.Errorf("longer than %d bytes", lineLimit)
		case err != nil && !errors.Is(err, io.EOF):
			return count, &ioError{err}
		case size > d.limits.Bytes:
			return count, fmt.Errorf("the dump is longer than %d bytes", d.limits.Bytes)
		case err != nil && len(text) == 0:
			if d.root == nil {
				return count, errors.New("the dump holds nothing")
			}
			return count, nil
		}
		if err := d.line(bytes.TrimSuffix(text, []byte{'\n'})); err != nil {
			return count, err
		}
	}
}

// line reads one line and puts its node into the tree.
func (d *dumpReader) line(text []byte) error {
	if d.entries++; d.entries > d.limits.Entries {
		return fmt.Errorf("more than %d entries", d.limits.Entries)
	}
	l, err := splitLine(text)
	if err != nil {
		return err
	}
	if d.path, err = unescape(d.path[:0], l.fields[fieldPath]); err != nil {
		return fmt.Errorf("path: %w", err)
	}
	if l.link {
		err = d.addLink(&l)
	} else {
		err = d.addNode(&l)
	}
	if err != nil {
		return fmt.Errorf("%.200q: %w", d.path, err)
	}
	return nil
}

func (d *dumpReader) addNode(l *line) error {
	n, err := l.node()
	if err != nil {
		return err
	}
	if n.Xattrs, err = d.xattrs(l.xattrs); err != nil {
		return fmt.Errorf("extended attributes: %w", err)
	}
	if err := checkNode(n); err != nil {
		return err
	}
	if string(d.path) == "/" {
		switch {
		case n.Kind != tree.Directory:
			return errors.New("the root must be a directory")
		case d.root != nil:
			return errors.New("there is a root already")
		}
		d.root = n
		return nil
	}
	_, _, err = d.put(n)
	return err
}

// put adds a node to the tree at d.path and returns its directory and name.
func (d *dumpReader) put(n *tree.Node) (*tree.Node, string, error) {
	if d.root == nil {
		return nil, "", errors.New("the root must come first")
	}
	slash := bytes.LastIndexByte(d.path, '/')
	name := string(d.path[slash+1:])
	if err := checkName(name); err != nil {
		return nil, "", err
	}
	if parent := d.path[:slash+1]; d.dir == nil || string(parent) != d.dirPath {
		dir, depth := d.lookup(parent)
		switch {
		case dir == nil || dir.Kind != tree.Directory:
			return nil, "", errors.New("its directory isn't there, or isn't a directory")
		case depth >= depthLimit:
			return nil, "", fmt.Errorf("directories nest deeper than %d", depthLimit)
		}
		d.dir, d.dirPath = dir, string(parent)
	}
	if d.dir.Child(name) != nil {
		return nil, "", errors.New("the name is there already")
	}
	d.dir.SetChild(name, n)
	return d.dir, name, nil
}

// lookup returns the node at a path, and how deep it lies. Slashes too many don't matter.
func (d *dumpReader) lookup(path []byte) (n *tree.Node, depth int) {
	n = d.root
	for part := range bytes.SplitSeq(path, []byte{'/'}) {
		if len(part) == 0 {
			continue
		}
		if n = n.Child(string(part)); n == nil {
			return nil, 0
		}
		depth++
	}
	return n, depth
}

// xattrs reads the attributes at the end of a line. The last of several with one name counts.
func (d *dumpReader) xattrs(text []byte) ([]tree.Xattr, error) {
	if len(text) > xattrTextLimit {
		return nil, fmt.Errorf("%d bytes: more than %d", len(text), xattrTextLimit)
	}
	var n tree.Node
	for len(text) > 0 {
		var field []byte
		field, text, _ = bytes.Cut(text, []byte{' '})
		key, value, ok := bytes.Cut(field, []byte{'='})
		if !ok {
			return nil, fmt.Errorf("%.40q has no \"=\"", field)
		}
		var err error
		if d.key, err = unescape(d.key[:0], key); err != nil {
			return nil, err
		}
		if d.value, err = unescape(d.value[:0], value); err != nil {
			return nil, err
		}
		n.SetXattr(d.intern.name(d.key), d.intern.value(d.value))
	}
	size := 12
	for _, x := range n.Xattrs {
		if size += 7 + len(x.Name) + len(x.Value); size > xattrSizeLimit {
			return nil, fmt.Errorf("more than %d bytes", xattrSizeLimit)
		}
	}
	return n.Xattrs, nil
}
