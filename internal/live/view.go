package live

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/mount"
)

// view is a top-level directory as it is seen here.
type view struct {
	name string
	path string
	// base is the mount at "/", top the one that the directory is seen on: the same one the first time.
	base, top mount.Entry
	// mounts are those at and inside of it.
	mounts mount.Table
}

func (w *work) views(table mount.Table, names []string) []view {
	base := w.base.Entry
	if e, ok := table.Find(base.ID.Mount); ok {
		base = e
	}
	views := make([]view, 0, len(names))
	for _, name := range names {
		v := view{name: name, base: base, top: base, path: w.path(name)}
		if stack := w.stack(table, name); len(stack) > 0 {
			v.top = stack[len(stack)-1]
		}
		for _, e := range table {
			if below(e.Point, v.path) {
				v.mounts = append(v.mounts, e)
			}
		}
		views = append(views, v)
	}
	return views
}

// look notes which directories a mount namespace sees by mounts of its own, given its table, and what
// in it would receive a new tree although it is to keep the old one. It is a pure function.
func (n *Namespace) look(views []view, theirs mount.Table) {
	for _, v := range views {
		if !v.keeps(theirs) {
			continue
		}
		n.Keeps = append(n.Keeps, v.name)
		v.came(n, theirs)
		for _, e := range theirs {
			over := e.Root == "/" && !v.covered(theirs, e) || e.Root == "/"+v.name
			if v.follows(e) && over && !slices.Contains(n.receives, e.ID) {
				n.receives = append(n.receives, e.ID)
			}
		}
	}
	// What is kept out at "/" is kept out of all directories.
	for _, v := range views {
		misses := slices.ContainsFunc(theirs, func(e mount.Entry) bool { return e.Root == "/" && v.follows(e) && slices.Contains(n.receives, e.ID) })
		if misses && !slices.Contains(n.Keeps, v.name) {
			n.Keeps = append(n.Keeps, v.name)
		}
	}
}

// came notes copies of the tree that is here which came into a namespace after it had made mounts of its own, where nobody had looked: one
// that hides a mount inside of what it covers, and one that allows more than the mount that it came upon.
func (v view) came(n *Namespace, theirs mount.Table) {
	for _, e := range theirs {
		if !sameFS(e, v.top) || e.Root != v.top.Root || !strings.HasSuffix(e.Point, "/"+v.name) {
			continue
		}
		upon, ok := theirs.Find(e.Parent)
		root := strings.TrimSuffix(e.Point, v.name)
		switch {
		case slices.ContainsFunc(theirs.Children(e.Parent), func(o mount.Entry) bool {
			return o.Point != e.Point && below(o.Point, e.Point) && !v.here(o, root)
		}):
			n.covers = append(n.covers, e.ID)
		case ok && upon.Root == v.top.Root && narrower(upon, e):
			n.covers = append(n.covers, e.ID) // that one is the old tree, as the namespace is to see it
		case ok && narrower(upon, v.base) && narrower(upon, e):
			n.wider = append(n.wider, e.ID)
		}
	}
}

// covered reports whether the directory of a copy of "/" has a mount of the namespace's own upon it, as by ProtectSystem=full,
// beside the copies of those that are here. The kernel puts what it receives at "/" beneath that one (attach_recursive_mnt
// in fs/namespace.c), and leaves it there when what lies beneath goes.
func (v view) covered(theirs mount.Table, e mount.Entry) bool {
	stack, copies := theirs.Stack(e.ID.Mount, filepath.Join(e.Point, v.name)), 0
	for _, o := range v.mounts {
		if o.Point == v.path {
			copies++
		}
	}
	return len(stack) > copies && !v.here(stack[len(stack)-1], e.Point)
}

// keeps reports whether a namespace sees the directory, or part of it, in another way than by a copy of
// what is here.
func (v view) keeps(theirs mount.Table) bool {
	var places []string
	for _, e := range theirs {
		if !sameFS(e, v.base) || e.Root != "/" {
			continue
		}
		at := filepath.Join(e.Point, v.name)
		places = append(places, at)
		if !v.follows(e) || narrower(e, v.base) || v.differs(theirs, at) {
			return true
		}
	}
	return slices.ContainsFunc(theirs, func(e mount.Entry) bool {
		return v.has(e) && !slices.ContainsFunc(places, func(at string) bool { return below(e.Point, at) })
	})
}

// has reports whether a mount shows the directory or something in it by itself.
func (v view) has(e mount.Entry) bool {
	if etcLayer(mount.Table{v.top}) && sameFS(e, v.top) {
		return true
	}
	return (sameFS(e, v.base) || sameFS(e, v.top)) && below(e.Root, "/"+v.name)
}

// differs reports whether a namespace has a mount at or inside of the directory, which is at a path
// there, that isn't a copy of one that is here.
func (v view) differs(theirs mount.Table, at string) bool {
	return slices.ContainsFunc(theirs, func(e mount.Entry) bool { return below(e.Point, at) && !v.here(e, strings.TrimSuffix(at, v.name)) })
}

// here reports whether a namespace's mount, of a copy of "/" at a path there, is a copy of one that is here.
func (v view) here(e mount.Entry, root string) bool {
	at := filepath.Join(root, v.name)
	return slices.ContainsFunc(v.mounts, func(o mount.Entry) bool {
		return sameFS(e, o) && e.Root == o.Root && o.Point == v.path+strings.TrimPrefix(e.Point, at) && !narrower(e, o)
	})
}

// follows reports whether what is mounted on "/" here is mounted on that mount, too.
func (v view) follows(e mount.Entry) bool {
	return v.base.Group != 0 && (e.Master == v.base.Group || e.Group == v.base.Group)
}

func sameFS(a, b mount.Entry) bool { return a.ID.Major == b.ID.Major && a.ID.Minor == b.ID.Minor }

// narrower reports whether a mount forbids what another allows.
func narrower(e, than mount.Entry) bool { return attrsOf(e)&^attrsOf(than) != 0 }

// below reports whether a path is another one or lies below it.
func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir) && strings.HasPrefix(path[len(dir):], "/")
}
