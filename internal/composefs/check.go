package composefs

import (
	"fmt"
	"math/bits"
	"strings"

	"github.com/powernode/powernode-agent/internal/erofs"
	"github.com/powernode/powernode-agent/internal/tree"
)

// checkName refuses what can't be the name of a directory entry.
func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("the name %q can't be an entry's", name)
	case len(name) > tree.NameMax:
		return fmt.Errorf("a name of %d bytes: at most %d are possible", len(name), tree.NameMax)
	case strings.IndexByte(name, '/') >= 0 || strings.IndexByte(name, 0) >= 0:
		return fmt.Errorf("the name %q holds a slash or a NUL", name)
	}
	return nil
}

// checkNode refuses nodes that the format can't hold.
func checkNode(n *tree.Node) error {
	if n.Mode > 0o7777 {
		return fmt.Errorf("mode %#o: only permission bits are possible", n.Mode)
	}
	if n.Kind != tree.Directory && n.Len() > 0 {
		return fmt.Errorf("entries in something that is no directory")
	}
	if err := checkContent(n); err != nil {
		return err
	}
	prev := ""
	for _, x := range n.Xattrs {
		if err := checkXattr(x); err != nil {
			return err
		}
		if x.Name <= prev {
			return fmt.Errorf("extended attribute %q after %q: they must be sorted and unique", x.Name, prev)
		}
		prev = x.Name
	}
	return nil
}

func checkContent(n *tree.Node) error {
	switch n.Kind {
	case tree.Directory, tree.CharDevice, tree.BlockDevice, tree.FIFO, tree.Socket:
		return nil
	case tree.Symlink:
		return checkPath("a symlink's target", n.Target)
	case tree.Regular:
	default:
		return fmt.Errorf("the unknown inode type %d", n.Kind)
	}
	if n.Inline != nil {
		if uint64(len(n.Inline)) != n.Size || n.Size > inlineLimit {
			return fmt.Errorf("%d bytes of inline content for a size of %d: they must be equal, and at most %d", len(n.Inline), n.Size, inlineLimit)
		}
		return nil
	}
	if _, chunks := chunking(n.Size); chunks > chunkLimit {
		return fmt.Errorf("a file of %d bytes is too large", n.Size)
	}
	if n.Payload != "" {
		return checkPath("a payload's path", n.Payload)
	}
	return nil
}

func checkPath(what, path string) error {
	switch {
	case path == "":
		return fmt.Errorf("%s is empty", what)
	case len(path) > pathLimit:
		return fmt.Errorf("%s of %d bytes: at most %d are possible", what, len(path), pathLimit)
	case strings.IndexByte(path, 0) >= 0:
		return fmt.Errorf("%s holds a NUL", what)
	}
	return nil
}

func checkXattr(x tree.Xattr) error {
	switch {
	case x.Name == "" || len(x.Name) > xattrNameLimit:
		return fmt.Errorf("extended attribute with a name of %d bytes: 1 to %d are possible", len(x.Name), xattrNameLimit)
	case strings.IndexByte(x.Name, 0) >= 0:
		return fmt.Errorf("extended attribute %q with a NUL in its name", x.Name)
	case len(x.Value) > xattrValueLimit:
		return fmt.Errorf("extended attribute %q of %d bytes: at most %d are possible", x.Name, len(x.Value), xattrValueLimit)
	}
	return nil
}

// external reports whether the file's content lies in the object store.
func external(n *tree.Node) bool {
	return n.Kind == tree.Regular && n.Size > 0 && n.Inline == nil
}

// isWhiteout reports whether n is overlayfs's sign for "nothing here": a character device 0:0.
func isWhiteout(n *tree.Node) bool { return n.Kind == tree.CharDevice && n.Rdev == 0 }

// chunking returns the binary logarithm of the chunk size that covers a file of size bytes with
// as few chunks as possible, each no larger than it needs to be, and how many that takes.
func chunking(size uint64) (chunkBits, chunks uint64) {
	if size == 0 {
		return 0, 0
	}
	// C's ilog2 has ilog2(0) = 0, and sizes below a block make no difference.
	chunkBits = min(max(uint64(bits.Len64(size-1)), 12), chunkBitsLimit)
	return chunkBits, (size-1)>>chunkBits + 1
}

// modeOf returns the node's st_mode.
func modeOf(n *tree.Node) uint16 {
	switch n.Kind {
	case tree.Directory:
		return erofs.ModeDir | n.Mode
	case tree.Regular:
		return erofs.ModeRegular | n.Mode
	case tree.Symlink:
		return erofs.ModeSymlink | n.Mode
	case tree.CharDevice:
		return erofs.ModeChar | n.Mode
	case tree.BlockDevice:
		return erofs.ModeBlock | n.Mode
	case tree.FIFO:
		return erofs.ModeFIFO | n.Mode
	default:
		return erofs.ModeSocket | n.Mode
	}
}
