package modulebuild

import (
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/tree"
)

// content is a tree together with where the bytes of its files lie.
type content struct {
	root *tree.Node
	// files maps each regular file that isn't inline to its path on this machine.
	files map[*tree.Node]string
	// removed and opaque are paths with overlayfs's marks: what isn't there any more, and
	// directories that hide those of the same path below.
	removed, opaque []string
	// skipped are the paths of sockets.
	skipped []string
	// below is the base's tree, from which add takes the attributes of directories; or nil.
	below *tree.Node
	// own are the nodes that the builder added: they have no time until it is settled.
	own []*tree.Node
}

// open opens a file's bytes.
func (c *content) open(_ string, n *tree.Node) (io.ReadCloser, error) {
	return os.OpenFile(c.files[n], os.O_RDONLY|unix.O_NOFOLLOW, 0)
}

// add puts a small file or a directory into the tree and makes the directories above, like those
// of the base, else as root's with mode 0755. What stands in the way is replaced.
func (c *content) add(path string, n *tree.Node) {
	dir, below := c.root, c.below
	parts := strings.Split(path, "/")
	for _, name := range parts[:len(parts)-1] {
		if below != nil {
			below = below.Child(name)
		}
		next := dir.Child(name)
		if next == nil || next.Kind != tree.Directory {
			next = tree.NewDir(0o755)
			if below != nil && below.Kind == tree.Directory {
				next.Mode, next.UID, next.GID, next.Mtime, next.Xattrs = below.Mode, below.UID, below.GID, below.Mtime, below.Xattrs
			} else {
				c.own = append(c.own, next)
			}
			dir.SetChild(name, next)
		}
		dir = next
	}
	dir.SetChild(parts[len(parts)-1], n)
}

// read returns a regular file's bytes, up to limit, and false if there is no such file.
func (c *content) read(path string, limit int64) ([]byte, bool, error) {
	n := c.root.Lookup(path)
	if n == nil || n.Kind != tree.Regular {
		return nil, false, nil
	}
	if n.Inline != nil || n.Size == 0 {
		return n.Inline, true, nil
	}
	f, err := c.open(path, n)
	if err != nil {
		return nil, false, err
	}
	defer f.Close() //nolint:errcheck // only read from
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = errTooLarge(path, limit)
	}
	return b, true, err
}

// prune takes out what drop says, directories with all that is in them.
func prune(dir *tree.Node, path string, drop func(path string, n *tree.Node) bool) {
	for name, n := range dir.Entries() {
		at := name
		if path != "" {
			at = path + "/" + name
		}
		if drop(at, n) {
			dir.RemoveChild(name)
		} else if n.Kind == tree.Directory {
			prune(n, at, drop)
		}
	}
}
