package composefs

import (
	"errors"
	"fmt"
	"strings"

	"github.com/powernode/powernode-agent/internal/tree"
)

// entry is a directory entry of the image: a name of the tree, "." or "..", or a stub.
type entry struct {
	name string
	node *tree.Node // nil for "." and ".."
	// ref is the inode's index in plan.inodes. Until number has run, it is the index of a
	// directory's run of entries or of any other node's leaf.
	ref uint32
}

// run is where a directory's entries lie in plan.entries, in byte order of their names.
type run struct{ first, count uint32 }

// leaf is a node that is no directory, with all its names.
type leaf struct {
	// home is the entry in whose place the inode is laid down.
	home uint32
	// ref is the inode's index once number has given it one.
	ref uint32
	// names counts the entries.
	names uint32
	// marked says that home itself is marked as a further name, so that one without a mark goes before.
	marked bool
	stub   bool
}

// collector walks a tree depth first, in byte order of the names.
type collector struct {
	entries []entry
	runs    []run
	leaves  []leaf
	// seen finds the leaf of a node that has a further name, which only those have that links names, and directories that
	// have one.
	seen      map[*tree.Node]uint32
	links     *tree.Links
	whiteouts bool
	stack     []frame
}

// frame is a directory on the way from the root to where the walk is.
type frame struct {
	node *tree.Node
	run  run
	next uint32
}

// collect gathers all names of the tree below root and those that every image has besides.
func collect(root *tree.Node) (*collector, error) {
	if root == nil || root.Kind != tree.Directory {
		return nil, errors.New("the root must be a directory")
	}
	links := tree.FindLinks(root)
	names, dirs := links.Names+len(stubNames)/2, links.Directories
	c := &collector{
		links: links, seen: make(map[*tree.Node]uint32, dirs),
		entries: make([]entry, 0, names+2*dirs), runs: make([]run, 0, dirs), leaves: make([]leaf, 0, max(0, names-dirs)),
	}
	if err := c.enter(root); err != nil {
		return nil, c.where("", err)
	}
	for len(c.stack) > 0 {
		top := &c.stack[len(c.stack)-1]
		if top.next == top.run.count {
			c.stack = c.stack[:len(c.stack)-1]
			continue
		}
		index := top.run.first + top.next
		top.next++
		e := &c.entries[index]
		if e.node == nil {
			continue
		}
		if err := c.visit(top.node, e, index); err != nil {
			return nil, c.where(e.name, err)
		}
	}
	return c, nil
}

// enter lists a directory's entries, which the walk then goes through.
func (c *collector) enter(dir *tree.Node) error {
	if _, again := c.seen[dir]; again {
		return errors.New("a directory can have one name only")
	}
	if len(c.stack) >= depthLimit {
		return fmt.Errorf("directories nest deeper than %d", depthLimit)
	}
	if err := checkNode(dir); err != nil {
		return err
	}
	c.seen[dir] = 0
	added := []entry{{name: "."}, {name: ".."}}
	if len(c.stack) == 0 {
		added = append(added, stubs(dir)...)
	}
	first := uint32(len(c.entries))
	for name, child := range dir.Entries() {
		if err := checkName(name); err != nil {
			return err
		}
		for len(added) > 0 && added[0].name < name {
			c.entries, added = append(c.entries, added[0]), added[1:]
		}
		c.entries = append(c.entries, entry{name: name, node: child})
	}
	c.entries = append(c.entries, added...)
	r := run{first, uint32(len(c.entries)) - first}
	c.runs = append(c.runs, r)
	c.stack = append(c.stack, frame{node: dir, run: r})
	return nil
}

// stubs returns the whiteouts "00" to "ff" that composefs puts into an image's root, except where
// the tree has the name. They hide an object store's directories where it is mounted beside the image.
func stubs(root *tree.Node) []entry {
	list := make([]entry, 0, len(stubNames)/2)
	for i := range len(stubNames) / 2 {
		name := stubNames[2*i : 2*i+2]
		if root.Child(name) != nil {
			continue
		}
		stub := &tree.Node{Kind: tree.CharDevice, Mode: 0o644, UID: root.UID, GID: root.GID, Mtime: root.Mtime}
		if label, ok := root.Xattr(nameSELinux); ok {
			stub.Xattrs = []tree.Xattr{{Name: nameSELinux, Value: label}}
		}
		list = append(list, entry{name: name, node: stub, ref: stubRef})
	}
	return list
}

// stubNames are the stubs' names, one after the other.
var stubNames = func() string {
	const digits = "0123456789abcdef"
	var names strings.Builder
	for i := range 256 {
		names.WriteByte(digits[i>>4])
		names.WriteByte(digits[i&15])
	}
	return names.String()
}()

// stubRef marks a stub's entry until visit gives it a leaf.
const stubRef = ^uint32(0)

// visit takes in an entry of a directory.
func (c *collector) visit(dir *tree.Node, e *entry, index uint32) error {
	n := e.node
	if n.Kind == tree.Directory {
		e.ref = uint32(len(c.runs))
		return c.enter(n)
	}
	marked := dir.IsLink(e.name)
	several := c.links.Several(n)
	at, again := uint32(0), false
	if several {
		at, again = c.seen[n]
	}
	if again {
		l := &c.leaves[at]
		l.names++
		if isWhiteout(n) {
			return errors.New("a whiteout can't have hard links")
		}
		if l.marked && !marked {
			l.home, l.marked = index, false
		}
		e.ref = at
		return nil
	}
	stub := e.ref == stubRef
	if err := checkNode(n); err != nil {
		return err
	}
	c.whiteouts = c.whiteouts || isWhiteout(n) && !stub
	if e.ref = uint32(len(c.leaves)); several {
		c.seen[n] = e.ref
	}
	c.leaves = append(c.leaves, leaf{home: index, names: 1, marked: marked, stub: stub})
	return nil
}

// where adds the path of the entry that the walk is at to an error.
func (c *collector) where(name string, err error) error {
	var path strings.Builder
	for _, f := range c.stack {
		// next counts the entry that the walk went into.
		if f.next > 0 {
			path.WriteByte('/')
			path.WriteString(c.entries[f.run.first+f.next-1].name)
		}
	}
	if path.Len() == 0 {
		path.WriteString("/" + name)
	}
	return fmt.Errorf("%.200q: %w", path.String(), err)
}
