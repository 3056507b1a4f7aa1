package live

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/difference"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/tree"
)

// Kind is what a name in the root directory of a root image is.
type Kind string

// The kinds. The zero value says that there is no such name.
const (
	Absent    Kind = ""
	Directory Kind = "directory"
	Link      Kind = "link"
	Other     Kind = "other" // a file, a device: not to be changed live
)

// Entry is a name in the root directory of a root image, as far as it matters here.
type Entry struct {
	Kind Kind `json:"kind,omitempty"`
	// Target is where a Link points.
	Target string `json:"target,omitempty"`
	// Mode, UID, GID, Mtime and Xattrs are those of a Directory.
	Mode   uint16       `json:"mode,omitempty"`
	UID    uint32       `json:"uid,omitempty"`
	GID    uint32       `json:"gid,omitempty"`
	Mtime  tree.Time    `json:"mtime,omitzero"`
	Xattrs []tree.Xattr `json:"xattrs,omitempty"`
}

// Change is a name in the root directory at or below which two root images differ.
type Change struct {
	Name string `json:"name"`
	From Entry  `json:"from,omitzero"`
	To   Entry  `json:"to,omitzero"`
}

// never are the top-level directories that belong to the machine and not to a root image.
var never = []string{"dev", "persist", "proc", "run", "sys", "tmp", "var"}

// Changes returns what has to happen in the root directory for a difference between two root images:
// nothing where the names differ by no more than a link's owner or time.
func Changes(top []difference.TopLevel) []Change {
	var changes []Change
	for _, t := range top {
		c := Change{Name: t.Name, From: entryOf(t.From), To: entryOf(t.To)}
		if slices.Contains(never, c.Name) || c.From.Kind == Link && c.To.Kind == Link && c.From.Target == c.To.Target {
			continue
		}
		changes = append(changes, c)
	}
	return changes
}

func entryOf(n *tree.Node) Entry {
	if n == nil {
		return Entry{}
	}
	switch n.Kind {
	case tree.Directory:
		return Entry{Kind: Directory, Mode: n.Mode, UID: n.UID, GID: n.GID, Mtime: n.Mtime, Xattrs: n.Xattrs}
	case tree.Symlink:
		return Entry{Kind: Link, Target: n.Target}
	case tree.Regular, tree.CharDevice, tree.BlockDevice, tree.FIFO, tree.Socket:
	}
	return Entry{Kind: Other}
}

// mounts reports whether the change is one of mounts: a directory is there, before or after. One that
// the new image doesn't have is replaced too, by what the upper alone holds.
func (c Change) mounts() bool { return c.From.Kind == Directory || c.To.Kind == Directory }

// reverse is the change back.
func (c Change) reverse() Change { return Change{Name: c.Name, From: c.To, To: c.From} }

// possible says why a change can't be done live; "" if it can.
func (c Change) possible() string {
	switch {
	case slices.Contains(never, c.Name):
		return "it belongs to the machine"
	case c.From.Kind == Other || c.To.Kind == Other:
		return "files in / itself are in use as they are"
	case c.From.Kind != Absent && c.To.Kind != Absent && c.From.Kind != c.To.Kind:
		return fmt.Sprintf("a %s becomes a %s", c.From.Kind, c.To.Kind)
	default:
		return ""
	}
}

func (c Change) validate() error {
	valid := c.Name != "" && c.Name != "." && c.Name != ".." && len(c.Name) <= tree.NameMax && !strings.ContainsAny(c.Name, "/\x00")
	for _, e := range []Entry{c.From, c.To} {
		valid = valid && slices.Contains([]Kind{Absent, Directory, Link, Other}, e.Kind)
		valid = valid && (e.Kind == Link) == (e.Target != "") && len(e.Target) < 4096 && !strings.Contains(e.Target, "\x00")
	}
	if !valid {
		return fault.New(fault.Broken, fault.Mount, "", "change the running root: %.80q is no change in the root directory", c.Name)
	}
	return nil
}

// sameAttributes reports whether two directories have the same mode, owner and xattrs.
func (e Entry) sameAttributes(other Entry) bool {
	return e.Mode == other.Mode && e.UID == other.UID && e.GID == other.GID &&
		slices.EqualFunc(e.Xattrs, other.Xattrs, func(a, b tree.Xattr) bool { return a.Name == b.Name && bytes.Equal(a.Value, b.Value) })
}

// Side is one of the two roots that are between a change.
type Side struct {
	Generation uint64          `json:"generation"`
	RootDigest fsverity.Digest `json:"root_digest"`
}

func (s Side) String() string {
	return fmt.Sprintf("generation %d (root digest %s)", s.Generation, s.RootDigest)
}
