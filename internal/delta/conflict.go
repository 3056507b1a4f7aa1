package delta

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/tree"
)

// Conflict is a path that was changed here and lies over something that another root image changes.
type Conflict struct {
	// Path is the absolute path of the local change, Local what it is.
	Path  string `json:"path"`
	Local Kind   `json:"local"`
	// Below is what the new image changes there.
	Below Change `json:"below"`
	// Origin is the path in the image where the change is, if that is another: that of a renamed file or directory.
	Origin string `json:"origin,omitempty"`
}

// String says it to a person.
func (c Conflict) String() string {
	what := map[Change]string{
		Same: "is the same", Added: "is new", Removed: "is removed", Attributes: "has another mode, owner or attributes",
		Content: "has other content", Type: "is of another kind",
	}[c.Below]
	if c.Origin != "" {
		return fmt.Sprintf("%s (local %s): what the new image has at %s, from where it was renamed, %s", c.Path, c.Local, c.Origin, what)
	}
	return fmt.Sprintf("%s (local %s): what the new image has there %s", c.Path, c.Local, what)
}

// Conflicts returns the local changes that lie over something which differs between two root images, the one that
// runs and the one that is to, in byte order of their paths. It is pure. Not among them is what both sides changed alike, as far as
// that can be seen without reading content: a file that was removed here and is gone there, a link to the same target. A
// directory that was only copied up because of what is in it is one only where the new image has something else
// in its place.
func Conflicts(d *Delta, from, to *tree.Node) []Conflict {
	var conflicts []Conflict
	for _, p := range places(d, from, to, nil) {
		if c := p.conflict(); c != Same {
			conflicts = append(conflicts, Conflict{Path: p.Path, Local: p.Kind, Below: c})
		}
		if c := p.atOrigin(); c != Same {
			conflicts = append(conflicts, Conflict{Path: p.Path, Local: p.Kind, Below: c, Origin: p.origin})
		}
	}
	return conflicts
}

// ConflictsAt is Conflicts for an upper whose root is a directory of the images, as that of a persistent "/etc" is.
func ConflictsAt(dir string, d *Delta, from, to *tree.Node) []Conflict {
	conflicts := Conflicts(d, ofKind(from.Lookup(dir), tree.Directory), ofKind(to.Lookup(dir), tree.Directory))
	for i := range conflicts {
		conflicts[i].Path = path.Join(dir, conflicts[i].Path)
		if conflicts[i].Origin != "" {
			conflicts[i].Origin = path.Join(dir, conflicts[i].Origin)
		}
	}
	return conflicts
}

// conflict returns what changes at the entry's own path.
func (p *place) conflict() Change {
	switch p.Kind {
	case Whiteout:
		if p.to == nil {
			return Same
		}
		return changeBelow(p.from, p.to)
	case Directory:
		return p.directoryConflict()
	case Opaque:
		if p.merge {
			return Same
		}
		return changeBelow(p.from, p.to)
	case Symlink:
		if p.to != nil && p.to.Kind == tree.Symlink && p.to.Target == p.Target {
			return Same
		}
		return changeBelow(p.from, p.to)
	case Redirected, File, Metacopy, Device:
		return changeBelow(p.from, p.to)
	}
	return Same
}

// directoryConflict is that of a directory which shows what is beneath it.
func (p *place) directoryConflict() Change {
	switch {
	case p.to != nil && p.to.Kind != tree.Directory:
		return Type
	case p.to == nil || p.from == nil || p.from.Kind != tree.Directory:
		return Same // what is in it says so itself
	case sameAttributes(p.from, p.to), p.like(p.from), p.like(p.to):
		return Same
	default:
		return Attributes
	}
}

// like reports whether a directory has the mode, owner and attributes of another, and so wasn't changed itself.
func (p *place) like(n *tree.Node) bool {
	return p.Mode == n.Mode && p.UID == n.UID && p.GID == n.GID && len(lacking(n.Xattrs, p.xattrs)) == 0 && len(surplus(p.xattrs, n.Xattrs)) == 0
}

// lacking returns those of the attributes that others don't have with the same value.
func lacking(xattrs, others []tree.Xattr) []tree.Xattr {
	return slices.DeleteFunc(slices.Clone(xattrs), func(x tree.Xattr) bool {
		return slices.ContainsFunc(others, func(o tree.Xattr) bool { return o.Name == x.Name && bytes.Equal(o.Value, x.Value) })
	})
}

// surplus returns the names of the attributes that others don't have at all. What the kernel's security modules put there by
// themselves isn't among them.
func surplus(xattrs, others []tree.Xattr) []string {
	var names []string
	for _, x := range xattrs {
		if !strings.HasPrefix(x.Name, "security.") && !slices.ContainsFunc(others, func(o tree.Xattr) bool { return o.Name == x.Name }) {
			names = append(names, x.Name)
		}
	}
	return names
}

// atOrigin returns what changes where a renamed entry has its content.
func (p *place) atOrigin() Change {
	if p.origin == "" {
		return Same
	}
	return changeBelow(p.source, p.newSource)
}
