package composefs

import (
	"bufio"
	"fmt"
	"io"
	"strconv"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/tree"
)

// WriteDump writes the tree below root in composefs's text format for dumps, as composefs-info
// dump prints the tree's image. Attributes are in order of their names.
func WriteDump(w io.Writer, root *tree.Node) error {
	c, err := collect(root)
	if err != nil {
		return fault.New(fault.Refuse, fault.Input, "", "dump a tree: %w", err)
	}
	d := dumpWriter{collector: c, out: bufio.NewWriterSize(w, outputSize)}
	d.findHomes()
	d.dir(nil, root, 0)
	if err := d.out.Flush(); err != nil {
		return fmt.Errorf("write a dump: %w", err)
	}
	return nil
}

type dumpWriter struct {
	*collector
	out  *bufio.Writer
	line []byte
	// homes holds the path of the first name of every leaf that has several.
	homes map[uint32]string
}

// children calls f for the entries of a directory that are the tree's own.
func (d *dumpWriter) children(run uint32, f func(index uint32, e *entry)) {
	r := d.runs[run]
	for i := r.first; i < r.first+r.count; i++ {
		e := &d.entries[i]
		if e.node == nil || e.node.Kind != tree.Directory && d.leaves[e.ref].stub {
			continue
		}
		f(i, e)
	}
}

func (d *dumpWriter) findHomes() {
	d.homes = make(map[uint32]string)
	several := false
	for i := range d.leaves {
		several = several || d.leaves[i].names > 1
	}
	if several {
		d.findHomesIn("", 0)
	}
}

func (d *dumpWriter) findHomesIn(path string, run uint32) {
	d.children(run, func(i uint32, e *entry) {
		switch {
		case e.node.Kind == tree.Directory:
			d.findHomesIn(path+"/"+e.name, e.ref)
		case d.leaves[e.ref].names > 1 && d.leaves[e.ref].home == i:
			d.homes[e.ref] = path + "/" + e.name
		}
	})
}

// dir writes the line of a directory and everything below it.
func (d *dumpWriter) dir(path []byte, n *tree.Node, run uint32) {
	r := d.runs[run]
	blocks, tail := dirShape(d.entries[r.first:][:r.count])
	nlink := uint32(2)
	d.children(run, func(_ uint32, e *entry) {
		if e.node.Kind == tree.Directory {
			nlink++
		}
	})
	if len(path) == 0 {
		d.put([]byte{'/'}, n, uint64(blocks)*blockSize+uint64(tail), nlink, "")
	} else {
		d.put(path, n, uint64(blocks)*blockSize+uint64(tail), nlink, "")
	}
	d.children(run, func(i uint32, e *entry) {
		child := append(append(path, '/'), e.name...)
		if e.node.Kind == tree.Directory {
			d.dir(child, e.node, e.ref)
			return
		}
		l := d.leaves[e.ref]
		home := ""
		if l.home != i {
			home = d.homes[e.ref]
		}
		d.put(child, e.node, sizeOf(e.node), linksOf(e.node, l.names), home)
	})
}

// sizeOf returns the size of a node that is no directory.
func sizeOf(n *tree.Node) uint64 {
	if n.Kind == tree.Symlink {
		return uint64(len(n.Target))
	}
	return n.Size
}

// put writes a line. home is the first name of a file where path is a further one, else "".
func (d *dumpWriter) put(path []byte, n *tree.Node, size uint64, nlink uint32, home string) {
	b := appendEscaped(d.line[:0], path, 0)
	b = append(b, ' ')
	b = strconv.AppendUint(b, size, 10)
	b = append(b, ' ')
	if home != "" {
		b = append(b, '@')
	}
	b = strconv.AppendUint(b, uint64(modeOf(n)), 8)
	for _, v := range [...]uint32{nlink, n.UID, n.GID, n.Rdev} {
		b = append(b, ' ')
		b = strconv.AppendUint(b, uint64(v), 10)
	}
	b = append(b, ' ')
	b = strconv.AppendInt(b, n.Mtime.Sec, 10)
	b = append(b, '.')
	b = strconv.AppendUint(b, uint64(n.Mtime.Nsec), 10)
	payload := home
	switch {
	case home != "":
	case n.Kind == tree.Symlink:
		payload = n.Target
	case external(n):
		payload = n.PayloadPath()
	}
	b = append(b, ' ')
	b = appendOptional(b, payload)
	b = append(b, ' ')
	b = appendOptional(b, n.Inline)
	b = append(b, ' ')
	if external(n) && hasDigest(n) {
		b = append(b, n.Digest.String()...)
	} else {
		b = append(b, '-')
	}
	for _, x := range n.Xattrs {
		b = append(b, ' ')
		b = appendEscaped(b, x.Name, xattrField)
		b = append(b, '=')
		b = appendEscaped(b, x.Value, xattrField)
	}
	d.line = append(b, '\n')
	// bufio.Writer keeps the first error for Flush.
	_, _ = d.out.Write(d.line)
}

// appendOptional adds a field that may be absent.
func appendOptional[T string | []byte](dst []byte, s T) []byte {
	if len(s) == 0 {
		return append(dst, '-')
	}
	return appendEscaped(dst, s, optionalField)
}
