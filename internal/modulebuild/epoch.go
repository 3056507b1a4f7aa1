package modulebuild

import (
	"bytes"
	"slices"
	"time"

	"github.com/powernode/powernode-agent/internal/tree"
)

// DefaultEpoch is the time of files from a directory where nobody names another: the beginning of
// 2020, UTC. A web server's answers to "has it changed since" go by such times, so releases should
// name one.
var DefaultEpoch = time.Unix(1577836800, 0).UTC()

// newestBefore returns the newest time of a file in the tree that is older than start, when the
// build began: that of the youngest file that came out of a package. Without one it is
// DefaultEpoch. Directories don't count: those over a base have the base's times.
func newestBefore(root *tree.Node, start time.Time) time.Time {
	newest := int64(0)
	for _, n := range root.Walk() {
		if n.Kind != tree.Directory && n.Mtime.Sec < start.Unix() {
			newest = max(newest, n.Mtime.Sec)
		}
	}
	if newest == 0 {
		return DefaultEpoch
	}
	return time.Unix(newest, 0).UTC()
}

// clamp turns later times into the epoch, and takes fractions of seconds away, which not every
// tool keeps.
func clamp(root *tree.Node, epoch time.Time) {
	for _, n := range root.Walk() {
		n.Mtime.Nsec = 0
		n.Mtime.Sec = min(n.Mtime.Sec, epoch.Unix())
	}
}

// flatten gives all nodes to root, with the modes that a checkout can know and one time.
func flatten(root *tree.Node, epoch time.Time) {
	for _, n := range root.Walk() {
		n.UID, n.GID, n.Mtime, n.Xattrs = 0, 0, tree.Time{Sec: epoch.Unix()}, nil
		switch {
		case n.Kind == tree.Symlink:
			n.Mode = 0o777
		case n.Kind == tree.Directory, n.Mode&0o111 != 0:
			n.Mode = 0o755
		default:
			n.Mode = 0o644
		}
	}
	// These have other modes on every system, and a composition takes the winner's.
	for path, mode := range map[string]uint16{"root": 0o700, "tmp": 0o1777, "var/tmp": 0o1777} {
		if n := root.Lookup(path); n != nil && n.Kind == tree.Directory {
			n.Mode = mode
		}
	}
}

// equalAttributes reports whether mode, owner and xattrs agree.
func equalAttributes(a, b *tree.Node) bool {
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID &&
		slices.EqualFunc(a.Xattrs, b.Xattrs, func(x, y tree.Xattr) bool {
			return x.Name == y.Name && bytes.Equal(x.Value, y.Value)
		})
}
