package composefs

import (
	"errors"
	"fmt"
	"strings"

	"github.com/powernode/powernode-agent/internal/tree"
)

// dumpLink is a line that gives a file a further name. It is resolved at the end of the dump,
// because the file's own line may come later.
type dumpLink struct {
	dir          *tree.Node
	name         string
	path, target string // slash-separated, without slashes too many
	place        *tree.Node
}

// addLink takes in a link's line; of its fields only path, mode and payload count.
func (d *dumpReader) addLink(l *line) error {
	kind, _, err := l.kind()
	if err != nil {
		return err
	}
	if kind == tree.Directory {
		return errors.New("a directory can have one name only")
	}
	target, given, err := l.optional(fieldPayload)
	switch {
	case err != nil:
		return fmt.Errorf("payload: %w", err)
	case !given:
		return errors.New("a further name of a file needs the file's path as payload")
	}
	place := &tree.Node{Kind: kind}
	dir, name, err := d.put(place)
	if err != nil {
		return err
	}
	d.pending[place] = len(d.links)
	d.links = append(d.links, dumpLink{dir: dir, name: name, path: cleanPath(string(d.path)), target: cleanPath(string(target)), place: place})
	return nil
}

// link replaces what holds the place of a further name by the file itself.
func (d *dumpReader) link() error {
	names := make(map[*tree.Node]uint32)
	files := make([]*tree.Node, len(d.links))
	for i := range d.links {
		file, home, err := d.follow(i)
		if err != nil {
			return fmt.Errorf("%.200q: %w", d.links[i].path, err)
		}
		files[i] = file
		names[file]++
		d.links[i].target = home
	}
	for i, l := range d.links {
		if pathLess(l.path, l.target) {
			l.dir.SetLink(l.name, files[i])
		} else {
			l.dir.SetChild(l.name, files[i])
		}
	}
	settle(names)
	return nil
}

// follow returns the file that a link leads to, over others if need be, and the file's own path.
func (d *dumpReader) follow(index int) (*tree.Node, string, error) {
	for range len(d.links) {
		target := d.links[index].target
		file, _ := d.lookup([]byte(target))
		if file == nil {
			return nil, "", fmt.Errorf("the file %.200q isn't there", "/"+target)
		}
		next, isLink := d.pending[file]
		switch {
		case isLink:
			index = next
		case file.Kind == tree.Directory:
			return nil, "", errors.New("a directory can have one name only")
		case isWhiteout(file):
			return nil, "", errors.New("a whiteout can't have hard links")
		default:
			return file, target, nil
		}
	}
	return nil, "", errors.New("links in a circle")
}

// settle makes explicit the link counts that differ from what counting the names gives, and only
// those. names holds the number of further names of each file that has any.
func settle(names map[*tree.Node]uint32) {
	for n, further := range names {
		switch given := n.Nlink; {
		case given == further+1:
			n.Nlink = 0
		case given == 0 && n.Explicit&tree.ExplicitNlink == 0:
			n.Nlink = 1
		}
	}
}

// cleanPath leaves out the slashes that a path doesn't need.
func cleanPath(path string) string {
	parts := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
	return strings.Join(parts, "/")
}

// pathLess reports whether a comes before b in a depth-first walk in byte order of names.
func pathLess(a, b string) bool {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return b[i] != '/' && (a[i] == '/' || a[i] < b[i])
		}
	}
	return len(a) < len(b)
}
