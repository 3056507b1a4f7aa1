package tree

import (
	"iter"
	"maps"
	"slices"
	"strings"
)

// directory holds a directory's entries in the order of their names, as nearly everybody brings them and wants them: images and
// compositions are written in that order and read in it, and sorting names again and again took as long as all else.
//
// Nothing that only reads writes to it, so that several may read a tree at the same time.
type directory struct {
	// list is sorted by name. An entry that was removed stays, without a node, until many have.
	list []entry
	// late are entries that came out of order to a long list, which takes them in once they are many. No name is in both.
	late  map[string]*Node
	links map[string]struct{}
	// count is how many entries there are.
	count int
}

type entry struct {
	name string
	node *Node
}

// shortList is how long a list may be for an entry to be put into its middle at once.
const shortList = 32

func (d *directory) find(name string) (int, bool) {
	if n := len(d.list); n == 0 || d.list[n-1].name < name {
		return n, false
	}
	return slices.BinarySearchFunc(d.list, name, func(e entry, name string) int { return strings.Compare(e.name, name) })
}

func (d *directory) child(name string) *Node {
	if i, ok := d.find(name); ok {
		return d.list[i].node
	}
	return d.late[name]
}

func (d *directory) set(name string, child *Node) {
	if _, ok := d.late[name]; ok {
		d.late[name] = child
		return
	}
	i, ok := d.find(name)
	switch {
	case ok:
		if d.list[i].node == nil {
			d.count++
		}
		d.list[i].node = child
		return
	case i == len(d.list):
		d.list = append(d.list, entry{name, child})
	case len(d.list) < shortList:
		// Into a new list: an iteration goes on with the old one.
		d.list = slices.Concat(d.list[:i], []entry{{name, child}}, d.list[i:])
	default:
		if d.late == nil {
			d.late = make(map[string]*Node)
		}
		if d.late[name] = child; len(d.late) > len(d.list) {
			d.list, d.late = d.sorted(), nil
		}
	}
	d.count++
}

func (d *directory) remove(name string) {
	if _, ok := d.late[name]; ok {
		delete(d.late, name)
		d.count--
	} else if i, ok := d.find(name); ok && d.list[i].node != nil {
		d.list[i].node = nil
		if d.count--; d.count < len(d.list)/2 {
			d.list, d.late = d.sorted(), nil
		}
	}
}

// sorted returns all entries in order, without those that were removed: a new list, unless there is nothing to be put in or left out.
func (d *directory) sorted() []entry {
	if d.count == len(d.list) && len(d.late) == 0 {
		return d.list
	}
	late := slices.Sorted(maps.Keys(d.late))
	all := make([]entry, 0, len(d.list)+len(late))
	for _, e := range d.list {
		for len(late) > 0 && late[0] < e.name {
			all, late = append(all, entry{late[0], d.late[late[0]]}), late[1:]
		}
		if e.node != nil {
			all = append(all, e)
		}
	}
	for _, name := range late {
		all = append(all, entry{name, d.late[name]})
	}
	return all
}

func (d *directory) clone(of func(*Node) *Node) *directory {
	c := &directory{list: slices.Clone(d.sorted()), links: maps.Clone(d.links), count: d.count}
	for i, e := range c.list {
		c.list[i].node = of(e.node)
	}
	return c
}

// Child returns the directory's entry of that name, or nil.
func (n *Node) Child(name string) *Node {
	if n.dir == nil {
		return nil
	}
	return n.dir.child(name)
}

// SetChild adds or replaces an entry. n must be a Directory. It is fastest where entries come in byte order of their names.
func (n *Node) SetChild(name string, child *Node) {
	if child == nil {
		n.RemoveChild(name)
		return
	}
	if n.dir == nil {
		n.dir = new(directory)
	}
	n.dir.set(name, child)
	if len(n.dir.links) > 0 {
		delete(n.dir.links, name)
	}
}

// Grow makes room for so many entries more.
func (n *Node) Grow(entries int) {
	if n.dir == nil {
		n.dir = new(directory)
	}
	n.dir.list = slices.Grow(n.dir.list, entries)
}

// SetLink adds or replaces an entry as SetChild does, and marks it as one of the further names of
// a file whose first name is elsewhere. Without marks the first name is the one that Walk yields
// first; an image lays the file's inode down in the place of its first name, so that marks change
// an image's bytes, though nothing that can be seen in the mounted tree. Only trees read from
// foreign dumps and images need them.
func (n *Node) SetLink(name string, child *Node) {
	n.SetChild(name, child)
	if n.dir.links == nil {
		n.dir.links = make(map[string]struct{})
	}
	n.dir.links[name] = struct{}{}
}

// IsLink reports whether SetLink put the entry there.
func (n *Node) IsLink(name string) bool {
	if n.dir == nil || len(n.dir.links) == 0 {
		return false
	}
	_, ok := n.dir.links[name]
	return ok
}

// RemoveChild removes an entry if it is there.
func (n *Node) RemoveChild(name string) {
	if n.dir != nil {
		n.dir.remove(name)
		delete(n.dir.links, name)
	}
}

// Len returns the number of entries.
func (n *Node) Len() int {
	if n.dir == nil {
		return 0
	}
	return n.dir.count
}

// Names returns the names of the entries in byte order.
func (n *Node) Names() []string {
	if n.dir == nil {
		return []string{}
	}
	names := make([]string, 0, n.dir.count)
	for _, e := range n.dir.sorted() {
		names = append(names, e.name)
	}
	return names
}

// Entries yields the entries in byte order of their names. The directory may be changed
// meanwhile; entries removed before their turn are passed over, those added may be.
func (n *Node) Entries() iter.Seq2[string, *Node] {
	return func(yield func(string, *Node) bool) {
		d := n.dir
		if d == nil {
			return
		}
		list := d.sorted()
		for _, e := range list {
			child := e.node
			if len(d.list) == 0 || &d.list[0] != &list[0] {
				child = d.child(e.name) // a copy sees no change
			}
			if child != nil && !yield(e.name, child) {
				return
			}
		}
	}
}

// Unordered yields the entries in no particular order, which takes no memory. The directory must not
// be changed meanwhile.
func (n *Node) Unordered() iter.Seq2[string, *Node] {
	return func(yield func(string, *Node) bool) {
		if n.dir == nil {
			return
		}
		for _, e := range n.dir.list {
			if e.node != nil && !yield(e.name, e.node) {
				return
			}
		}
		for name, child := range n.dir.late {
			if !yield(name, child) {
				return
			}
		}
	}
}
