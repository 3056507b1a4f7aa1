package modulebuild

import (
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/tree"
)

// places are the paths of a system that the builder itself makes, mounts upon, writes or reads. In
// a base none of them, and no directory above one, may be anything else: a symlink there would
// lead the builder, which works with all rights, out of the base's root.
var places = []struct {
	path string
	kind tree.Kind
}{
	{"dev", tree.Directory},
	{"proc", tree.Directory},
	{"run", tree.Directory},
	{"sys", tree.Directory},
	{"tmp", tree.Directory},
	{"etc/passwd", tree.Regular},
	{"etc/group", tree.Regular},
	{"usr/lib/sysusers.d", tree.Directory},
	{"usr/sbin/policy-rc.d", tree.Regular},
	{dpkgStatus, tree.Regular},
	{dpkgStatusD, tree.Directory},
}

// checkPlaces refuses a tree in which one of places isn't what it has to be. What isn't there at
// all is fine. The trees are what the directories that the builder works in were made of, or what
// was read from them after the last process there had ended, so there is no time between.
func checkPlaces(root *tree.Node, doing, hint string) error {
	for _, p := range places {
		n, path := root, ""
		for name := range strings.SplitSeq(p.path, "/") {
			path = strings.TrimPrefix(path+"/"+name, "/")
			if n = n.Child(name); n == nil {
				break
			}
			want := tree.Directory
			if path == p.path {
				want = p.kind
			}
			if n.Kind != want {
				return fault.New(fault.Refuse, fault.Input, hint, "%s: %s is %s, and has to be %s", doing, path, kindName(n.Kind), kindName(want))
			}
		}
	}
	return nil
}

func kindName(k tree.Kind) string {
	switch k {
	case tree.Directory:
		return "a directory"
	case tree.Regular:
		return "a regular file"
	case tree.Symlink:
		return "a symlink"
	case tree.FIFO:
		return "a FIFO"
	default:
		return "a device"
	}
}
