package layer

import (
	"strings"

	"github.com/powernode/powernode-agent/internal/tree"
)

// The OCI image specification's names for what a layer removes from those below
// (layer.md, "Whiteouts").
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
)

// cleanName returns an entry's name as a path without leading, trailing or doubled slashes and
// without "." components; "" is the root. reason is "" if the name is fit for a tree, and
// otherwise says what is wrong with it. slash says that the name ended as only a directory's may.
func cleanName(name string) (path string, slash bool, reason string) {
	switch {
	case name == "":
		return "", false, "its name is empty"
	case strings.HasPrefix(name, "/"):
		return "", false, "its name is absolute"
	case len(name) > pathMax+1: // one for a directory's slash
		return "", false, "its name is longer than 4095 bytes"
	case strings.ContainsRune(name, 0):
		return "", false, "its name contains a NUL"
	}
	parts := strings.Split(name, "/")
	kept := parts[:0]
	for _, part := range parts {
		switch {
		case part == "" || part == ".":
			continue
		case part == "..":
			return "", false, `its name contains ".."`
		case len(part) > tree.NameMax:
			return "", false, "its name has a component of more than 255 bytes"
		}
		kept = append(kept, part)
	}
	last := name[strings.LastIndexByte(name, '/')+1:]
	return strings.Join(kept, "/"), last == "" || last == ".", ""
}

// split returns a path's directory and last component.
func split(path string) (dir, base string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

// whiteout says what the last component of a name means: opaque for the marker of an opaque
// directory, the hidden name for a whiteout, neither for an ordinary name. reason is "" unless
// the name is of the reserved kind and means nothing.
func whiteout(path string) (hidden string, opaque bool, reason string) {
	dir, base := split(path)
	if strings.HasPrefix(dir, whiteoutPrefix) || strings.Contains(dir, "/"+whiteoutPrefix) {
		return "", false, "it lies below a name that is reserved for whiteouts"
	}
	if base == opaqueName {
		return "", true, ""
	}
	hidden, ok := strings.CutPrefix(base, whiteoutPrefix)
	if !ok {
		return "", false, ""
	}
	if hidden == "" || hidden == "." || hidden == ".." || strings.HasPrefix(hidden, whiteoutPrefix) {
		return "", false, "it is a whiteout of no possible name"
	}
	return hidden, false, ""
}
