package aftercare

import (
	"strings"

	"github.com/powernode/powernode-agent/internal/tree"
)

// linksMax is how many symlinks a path may lead over (linux/namei.h, MAXSYMLINKS).
const linksMax = 40

// resolve is Locate with follow.
func resolve(root *tree.Node, path string) (string, *tree.Node) { return Locate(root, path, true) }

// resolveParent is Locate without.
func resolveParent(root *tree.Node, path string) (string, *tree.Node) {
	return Locate(root, path, false)
}

// Locate follows a path through a tree as the kernel would with that tree as "/", symlinks included, and returns where it
// ends, absolute and without symlinks, and what is there; nil where it leads nowhere. A symlink at the path's end is followed
// only with follow.
func Locate(root *tree.Node, path string, follow bool) (string, *tree.Node) {
	if root == nil {
		return "", nil
	}
	names, nodes := []string{}, []*tree.Node{root}
	rest := strings.Split(path, "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			if len(names) > 0 {
				names, nodes = names[:len(names)-1], nodes[:len(nodes)-1]
			}
			continue
		}
		dir := nodes[len(nodes)-1]
		n := dir.Child(name)
		if n == nil {
			return "", nil
		}
		if n.Kind == tree.Symlink && (follow || len(rest) > 0) {
			if links++; links > linksMax {
				return "", nil
			}
			if strings.HasPrefix(n.Target, "/") {
				names, nodes = names[:0], nodes[:1]
			}
			rest = append(strings.Split(n.Target, "/"), rest...)
			continue
		}
		names, nodes = append(names, name), append(nodes, n)
	}
	return "/" + strings.Join(names, "/"), nodes[len(nodes)-1]
}
