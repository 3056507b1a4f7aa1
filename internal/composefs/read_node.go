package composefs

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/erofs"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/tree"
)

// node makes n a tree's node of an inode, and returns it.
func (r *reader) node(n *tree.Node, in *erofs.Inode, root bool) (*tree.Node, error) {
	kind, ok := kindOf(in.Mode)
	if !ok {
		return nil, fmt.Errorf("mode %#o has no known file type", in.Mode)
	}
	if n == &r.stub {
		*n = tree.Node{}
	}
	// Field by field: all others are zero, and writing them costs as much again.
	n.Kind, n.Mode, n.UID, n.GID, n.Mtime = kind, in.Mode&0o7777, in.UID, in.GID, tree.Time{Sec: in.Sec, Nsec: in.Nsec}
	var err error
	if r.xattrs, err = r.image.AppendXattrs(r.xattrs[:0], in); err != nil {
		return nil, err
	}
	object, err := r.takeXattrs(n, r.xattrs, root)
	if err != nil {
		return nil, err
	}
	if err := r.data(n, in, object); err != nil {
		return nil, err
	}
	return n, checkNode(n)
}

// nodesAtOnce is how many nodes are allocated together: they are kept together, too.
const nodesAtOnce = 64

func (r *reader) newNode() *tree.Node {
	if len(r.nodes) == 0 {
		r.nodes = make([]tree.Node, nodesAtOnce)
	}
	n := &r.nodes[0]
	r.nodes = r.nodes[1:]
	return n
}

// object is what overlayfs's attributes say about a file's content.
type object struct {
	metacopy, redirect []byte
}

// takeXattrs gives the node the attributes that are the tree's own, by their own names, and returns
// the ones that composefs added.
func (r *reader) takeXattrs(n *tree.Node, list []erofs.Xattr, root bool) (object, error) {
	var o object
	for _, x := range list {
		switch {
		case x.Name == nameMetacopy && o.metacopy == nil:
			o.metacopy = x.Value
			continue
		case x.Name == nameRedirect && o.redirect == nil:
			o.redirect = x.Value
			continue
		case x.Name == nameOpaque && root && string(x.Value) == "y":
			continue
		}
		name, own := unescapeName(x.Name)
		if !own {
			return o, fmt.Errorf("the attribute %.80q has no business here", x.Name)
		}
		n.Xattrs = append(n.Xattrs, tree.Xattr{Name: name, Value: r.intern.value(x.Value)})
	}
	if len(n.Xattrs) < 2 {
		return o, nil
	}
	byName := func(a, b tree.Xattr) int { return strings.Compare(a.Name, b.Name) }
	if !slices.IsSortedFunc(n.Xattrs, byName) {
		slices.SortFunc(n.Xattrs, byName)
	}
	return o, nil
}

// data reads what depends on the kind of inode.
func (r *reader) data(n *tree.Node, in *erofs.Inode, o object) error {
	if n.Kind == tree.Regular && in.Layout == erofs.ChunkBased {
		// The chunk indexes aren't looked at: overlayfs takes the content from the object store.
		n.Size = in.Size
		return takeObject(n, o)
	}
	if o.metacopy != nil || o.redirect != nil {
		return errors.New("an inode without content in the object store that refers to it")
	}
	switch n.Kind {
	case tree.Directory:
		return nil
	case tree.Regular:
		n.Size = in.Size
		if n.Size > inlineLimit {
			return fmt.Errorf("inline content of %d bytes: more than %d", n.Size, inlineLimit)
		}
		content, err := r.content(in)
		if n.Size > 0 {
			n.Inline = content
		}
		return err
	case tree.Symlink:
		if in.Size > pathLimit {
			return fmt.Errorf("a symlink's target of %d bytes: at most %d are possible", in.Size, pathLimit)
		}
		content, err := r.content(in)
		n.Target = string(content)
		return err
	case tree.CharDevice, tree.BlockDevice:
		n.Rdev = in.Union
	}
	if in.Size != 0 {
		return fmt.Errorf("a device, FIFO or socket of %d bytes", in.Size)
	}
	return nil
}

// content returns a copy of a small inode's data.
func (r *reader) content(in *erofs.Inode) ([]byte, error) {
	blocks, tail, err := r.image.Data(in)
	if err != nil {
		return nil, err
	}
	return append(append(make([]byte, 0, len(blocks)+len(tail)), blocks...), tail...), nil
}

// takeObject reads where a file's content lies.
func takeObject(n *tree.Node, o object) error {
	if n.Size == 0 || o.metacopy == nil {
		return errors.New("a file without content, inline or in the object store")
	}
	hasDigest := len(o.metacopy) > 0
	if hasDigest {
		if len(o.metacopy) != metacopySize || string(o.metacopy[:4]) != "\x00\x24\x00\x01" {
			return fmt.Errorf("metacopy of %d bytes that starts with % x: want the one of a SHA-256 digest", len(o.metacopy), o.metacopy[:min(4, len(o.metacopy))])
		}
		n.Digest = fsverity.Digest(o.metacopy[4:])
	}
	path, ok := bytes.CutPrefix(o.redirect, []byte{'/'})
	if o.redirect != nil && (!ok || len(path) == 0) {
		return fmt.Errorf("redirect to %.80q: want a path from the object store's root", o.redirect)
	}
	describe(n, hasDigest, path)
	return nil
}

// has reports whether the node has an attribute of that value.
func has(n *tree.Node, name, value string) bool {
	v, ok := n.Xattr(name)
	return ok && string(v) == value
}

// The names of marks, as unescapeName leaves them.
const (
	nameWhiteout  = overlayPrefix + "whiteout"
	nameWhiteouts = overlayPrefix + "whiteouts"
)

// holdsMarks reports whether the directory has the marks of one that holds whiteouts.
func (r *reader) holdsMarks(n *tree.Node) bool {
	return has(n, nameWhiteouts, "") && has(n, nameUserWhiteouts, "") &&
		(r.version < 1 || has(n, nameOpaque, "x") && has(n, nameUserOpaque, "x"))
}

// dropMarks removes a directory's marks.
func (r *reader) dropMarks(n *tree.Node) {
	names := []string{nameWhiteouts, nameUserWhiteouts}
	if r.version >= 1 {
		names = append(names, nameOpaque, nameUserOpaque)
	}
	dropXattrs(n, names...)
}

// isEscaped reports whether the node is a whiteout that was written as a regular file.
func isEscaped(n *tree.Node) bool {
	return n.Kind == tree.Regular && n.Size == 0 && has(n, nameWhiteout, "") && has(n, nameUserWhiteout, "")
}

// restoreWhiteout undoes the escape of a whiteout.
func restoreWhiteout(n *tree.Node) {
	n.Kind = tree.CharDevice
	dropXattrs(n, nameWhiteout, nameUserWhiteout)
}

func dropXattrs(n *tree.Node, names ...string) {
	n.Xattrs = slices.DeleteFunc(n.Xattrs, func(x tree.Xattr) bool { return slices.Contains(names, x.Name) })
	if len(n.Xattrs) == 0 {
		n.Xattrs = nil
	}
}
