package delta

import (
	"path"
	"strings"

	"github.com/powernode/powernode-agent/internal/tree"
)

// place is an entry of the upper together with what two root images have beneath it.
type place struct {
	*Entry
	name   string
	parent *place
	// children are the entries in a directory, by name.
	children map[string]*place
	// from and to are what the images have at the entry's path, nil where that is nothing or is hidden by a directory
	// above.
	from, to *tree.Node
	// source is where the old image has a metacopy's content or what a directory shows, newSource what the new
	// one has there.
	source, newSource *tree.Node
	// origin is the path of a renamed one's source in the images.
	origin string
	// merge says that an opaque directory is to show what the new image has there, hide that it has to be remembered of one that
	// it hides what the old image has.
	merge, hide bool
	// inWhole says that it lies in a directory, or is one, that is to hold all that it shows itself.
	inWhole bool
	// left says that the policy drops it: nothing of it needs to be settled.
	left bool
}

// places lays the entries over two images. The result is in the entries' order.
func places(d *Delta, from, to *tree.Node, drop func(path string) bool) []*place {
	root := &place{Entry: &Entry{Path: "/", Kind: Directory}, from: from, to: to, source: from, newSource: to, children: make(map[string]*place)}
	dirs := map[string]*place{"": root}
	all := make([]*place, 0, len(d.Entries))
	for i := range d.Entries {
		e := &d.Entries[i]
		dir, name := path.Split(e.Path)
		parent, ok := dirs[strings.TrimSuffix(dir, "/")]
		if !ok {
			continue // its directory was skipped, or is gone
		}
		p := &place{Entry: e, name: name, parent: parent}
		p.left = parent.left || drop != nil && drop(e.Path)
		p.lay(from, to)
		parent.children[name] = p
		if e.Kind.isDir() {
			p.children = make(map[string]*place)
			dirs[e.Path] = p
		}
		all = append(all, p)
	}
	return all
}

// lay finds what the images have beneath the entry.
func (p *place) lay(from, to *tree.Node) {
	p.from, p.to = child(p.parent.source, p.name), child(p.parent.newSource, p.name)
	p.source, p.newSource = p.from, p.to
	if p.Redirect != "" && (p.Kind == Redirected || p.Kind == Metacopy) {
		p.origin = p.Redirect
		if strings.HasPrefix(p.Redirect, "/") {
			p.source, p.newSource = lookup(from, p.Redirect), lookup(to, p.Redirect)
		} else {
			p.source, p.newSource = child(p.parent.source, p.Redirect), child(p.parent.newSource, p.Redirect)
			p.origin = path.Join(p.parent.originPath(), p.Redirect)
		}
	}
	switch p.Kind {
	case Metacopy:
		p.source, p.newSource = ofKind(p.source, tree.Regular), ofKind(p.newSource, tree.Regular)
	case Directory, Redirected:
		p.source, p.newSource = ofKind(p.source, tree.Directory), ofKind(p.newSource, tree.Directory)
	case Opaque:
		// One that was made here, where the old image has no directory, hides nothing; it is only marked because the
		// kernel marks every new directory. One that was copied up and then made opaque is meant to hide, and so is one that was
		// made in the place of an image's directory, which doesn't show any more once an image without that has been beneath it.
		isOld, isNew := ofKind(p.from, tree.Directory) != nil, ofKind(p.to, tree.Directory) != nil
		open := !p.left && !p.copied && !p.hides
		p.merge, p.hide = open && !isOld && isNew, open && isOld && !isNew
		p.source, p.newSource = nil, nil
		if p.merge {
			p.newSource = p.to
		}
	case File, Symlink, Device, Whiteout:
		p.source, p.newSource = nil, nil
	}
}

// originPath is the path in the images of what a directory shows.
func (p *place) originPath() string {
	switch {
	case p.parent == nil:
		return "/"
	case p.origin != "":
		return p.origin
	default:
		return path.Join(p.parent.originPath(), p.name)
	}
}

// whole reports whether a directory that was renamed must hold all that it shows itself.
func (p *place) whole() bool {
	return p.Kind == Redirected && !p.left && changeBelow(p.source, p.newSource) != Same
}

func lookup(root *tree.Node, path string) *tree.Node {
	if root == nil {
		return nil
	}
	return root.Lookup(path)
}

func child(dir *tree.Node, name string) *tree.Node {
	if dir == nil {
		return nil
	}
	return dir.Child(name)
}

func ofKind(n *tree.Node, kind tree.Kind) *tree.Node {
	if n == nil || n.Kind != kind {
		return nil
	}
	return n
}
