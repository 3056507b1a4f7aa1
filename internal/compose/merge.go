package compose

import (
	"bytes"
	"cmp"
	"iter"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/tree"
)

// entry is what one layer has at a path.
type entry struct {
	layer int
	node  *tree.Node
	// origin is the path that the node has in its module, where that is another one because it
	// or a directory above it moved.
	origin string
	// moved marks a directory that merges into this path without having it in its own module:
	// its attributes don't count.
	moved bool
}

func (c *composer) roots() []entry {
	entries := make([]entry, len(c.layers))
	for i, l := range c.layers {
		entries[i] = entry{layer: i, node: l.Root}
	}
	return entries
}

// candidates returns, winner first, what the directories have under that name, and what masks
// drop of it. path is the name's whole path.
func (c *composer) candidates(path, name string, dirs []entry, masked func(entry, claim)) []entry {
	var found []entry
	for _, d := range dirs {
		if child := d.node.Child(name); child != nil {
			found = append(found, d.below(name, child))
		}
	}
	return c.unmasked(path, found, masked)
}

// below is what a directory has under a name.
func (d entry) below(name string, child *tree.Node) entry {
	e := entry{layer: d.layer, node: child}
	if d.origin != "" {
		e.origin = join(d.origin, name)
	}
	return e
}

// unmasked drops what masks drop of the entries at a path, in place.
func (c *composer) unmasked(path string, found []entry, masked func(entry, claim)) []entry {
	if len(c.masks.all) == 0 {
		return found
	}
	return slices.DeleteFunc(found, func(e entry) bool {
		m, hit := c.maskOf(path, e)
		if hit && masked != nil {
			masked(e, m)
		}
		return hit
	})
}

// named is an entry of one of several directories.
type named struct {
	name  string
	at    int // the directory's index
	child *tree.Node
}

// together yields each name in any of the directories, in byte order, with what they have under it in their order, before masks.
// The slice is good until the next name.
func together(dirs []entry) iter.Seq2[string, []entry] {
	return func(yield func(string, []entry) bool) {
		found := make([]entry, 0, len(dirs))
		if len(dirs) == 1 {
			for name, child := range dirs[0].node.Entries() {
				if !yield(name, append(found, dirs[0].below(name, child))) {
					return
				}
			}
			return
		}
		var all []named
		for i, d := range dirs {
			for name, child := range d.node.Unordered() {
				all = append(all, named{name, i, child})
			}
		}
		slices.SortFunc(all, func(a, b named) int { return cmp.Or(strings.Compare(a.name, b.name), a.at-b.at) })
		for len(all) > 0 {
			name := all[0].name
			found = found[:0]
			for len(all) > 0 && all[0].name == name {
				found = append(found, dirs[all[0].at].below(name, all[0].child))
				all = all[1:]
			}
			if !yield(name, found) {
				return
			}
		}
	}
}

// maskOf returns the mask of the entry's own or a winning layer that matches it.
func (c *composer) maskOf(path string, e entry) (claim, bool) {
	for m := range c.masks.matching(path, e.node.Kind == tree.Directory) {
		if m.owner <= e.layer {
			return m, true
		}
	}
	if e.origin != "" && e.origin != path {
		return c.maskOf(e.origin, entry{layer: e.layer, node: e.node})
	}
	return claim{}, false
}

// verdict says what becomes of the candidates for one path.
type verdict struct {
	// dirs are the directories that merge; if there are none, leaf wins.
	dirs []entry
	leaf entry
	// moves are the directories whose content goes to target, where leaf, a symlink, leads.
	moves  []entry
	target string
	// rest are the candidates that lose without being a part of the above.
	rest []entry
}

// judge applies the rules to the candidates for a path, of which there is at least one.
func (c *composer) judge(path string, found []entry, w *way) verdict {
	isDir := func(e entry) bool { return e.node.Kind == tree.Directory }
	if !slices.ContainsFunc(found, isDir) {
		return verdict{leaf: found[0], rest: found[1:]}
	}
	var v verdict
	var links []entry
	for i, e := range found {
		if isDir(e) {
			v.dirs = append(v.dirs, e)
			continue
		}
		target, leads := "", false
		if e.node.Kind == tree.Symlink {
			target, leads = c.resolve(path, e.node.Target, w)
		}
		if !leads {
			v.rest = append(v.rest, found[i:]...)
			break
		}
		if len(links) == 0 {
			v.target = target
		}
		links = append(links, e)
	}
	switch {
	case len(links) > 0:
		v.leaf, v.moves, v.dirs = links[0], v.dirs, nil
		v.rest = append(links[1:], v.rest...)
	case len(v.dirs) == 0:
		v.leaf, v.rest = found[0], found[1:]
	}
	return v
}

// merge returns the directory that the entries, sorted by rank, make together. active are the
// protections that cover it.
func (c *composer) merge(path string, dirs []entry, active []claim) *tree.Node {
	dirs = c.withMoves(path, dirs)
	c.merged[path] = true
	first := dirs[0]
	if i := slices.IndexFunc(dirs, func(e entry) bool { return !e.moved }); i > 0 {
		first = dirs[i]
	}
	out := c.attributes(first.node)
	c.owners[out] = int32(first.layer)
	c.noteAttributes(path, first, dirs)
	for name, found := range together(dirs) {
		at := join(path, name)
		found = c.unmasked(at, found, func(e entry, m claim) { c.noteMasked(at, e, m) })
		if len(found) == 0 {
			continue
		}
		covering := c.checkProtected(at, found, active)
		v := c.judge(at, found, newWay())
		for _, e := range v.moves {
			c.report.Moves = append(c.report.Moves, Move{"/" + at, "/" + v.target, c.layers[e.layer].Name, c.layers[v.leaf.layer].Name})
		}
		if len(v.dirs) > 0 {
			if c.alone(at, v.dirs, covering) {
				out.SetChild(name, c.take(v.dirs[0]))
			} else {
				out.SetChild(name, c.merge(at, v.dirs, covering))
			}
			c.noteLosers(at, v.dirs[0], v.rest)
		} else {
			out.SetChild(name, c.copyLeaf(v.leaf))
			c.noteLosers(at, v.leaf, v.rest)
		}
		if c.err != nil {
			break
		}
	}
	return out
}

// alone reports whether a directory goes into the result as its module has it, with all that is below: nobody else brings, masks,
// protects or moves anything there, and no file in it has names elsewhere.
func (c *composer) alone(path string, dirs []entry, active []claim) bool {
	e := dirs[0]
	l := &c.layers[e.layer]
	if len(dirs) > 1 || e.origin != "" || e.moved || path == "run" || l.twice || !l.links.Plain(e.node) {
		return false
	}
	if !c.masks.spare(path, several) || !c.protected.spare(path, e.layer) {
		return false
	}
	if slices.ContainsFunc(active, func(p claim) bool { return p.owner != e.layer }) {
		return false
	}
	for target := range c.moves {
		if target == path || strings.HasPrefix(target, path+"/") {
			return false
		}
	}
	return true
}

// take has a node of an input in the result.
func (c *composer) take(e entry) *tree.Node {
	c.owners[e.node] = int32(e.layer)
	return e.node
}

// copyLeaf returns the result's node of a file: the input's own, or a copy, one for all names.
func (c *composer) copyLeaf(e entry) *tree.Node {
	l := &c.layers[e.layer]
	several := l.links.Several(e.node)
	if !several && !l.twice {
		return c.take(e)
	}
	if n, ok := l.copies[e.node]; several && ok {
		return n
	}
	n := c.newNode()
	*n = *e.node
	// Some names of the file may have lost: links are counted anew.
	n.Nlink = 0
	n.Explicit &^= tree.ExplicitNlink
	n.Xattrs = slices.Clone(n.Xattrs)
	if several {
		l.copies[e.node] = n
	}
	c.owners[n] = int32(e.layer)
	return n
}

// nodesAtOnce is how many nodes are allocated together: they are kept together, too.
const nodesAtOnce = 64

func (c *composer) newNode() *tree.Node {
	if len(c.nodes) == 0 {
		c.nodes = make([]tree.Node, nodesAtOnce)
	}
	n := &c.nodes[0]
	c.nodes = c.nodes[1:]
	return n
}

// attributes returns an empty directory with the attributes of n.
func (c *composer) attributes(n *tree.Node) *tree.Node {
	d := c.newNode()
	d.Kind, d.Mode, d.UID, d.GID, d.Mtime, d.Xattrs = tree.Directory, n.Mode, n.UID, n.GID, n.Mtime, slices.Clone(n.Xattrs)
	return d
}

// sameAttributes reports whether mode, owner and xattrs agree.
func sameAttributes(a, b *tree.Node) bool {
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID &&
		slices.EqualFunc(a.Xattrs, b.Xattrs, func(x, y tree.Xattr) bool {
			return x.Name == y.Name && bytes.Equal(x.Value, y.Value)
		})
}

// sameContent reports whether two nodes that are no directories hold the same.
func sameContent(a, b *tree.Node) bool {
	return a.Kind == b.Kind && a.Size == b.Size && a.Digest == b.Digest && a.Target == b.Target &&
		a.Rdev == b.Rdev && bytes.Equal(a.Inline, b.Inline) && a.PayloadPath() == b.PayloadPath()
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
