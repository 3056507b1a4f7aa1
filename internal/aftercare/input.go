package aftercare

import (
	"errors"
	"strings"

	"github.com/powernode/powernode-agent/internal/difference"
	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/tree"
)

// Input is what Decide goes by.
type Input struct {
	// Difference is what turns From into To, the root images before and after the change.
	Difference *difference.Difference
	From, To   *tree.Node
	// Read returns the content of a regular file of one of the trees; Contents makes one of a store. Without it
	// unit files count as changed wherever they differ.
	Read func(n *tree.Node) ([]byte, error)
	// Local reports whether the writable layer has something of its own at an absolute path, or hides it: what the
	// images have there isn't seen. nil is never.
	Local func(path string) bool
	// Owner names the module that an absolute path of To, or else of From, comes from; nil knows of none.
	Owner func(path string) string
	// Kernel is the release of the running kernel, as uname(2) gives it; "" where its modules don't count.
	Kernel string
	// Systemd says that systemd runs. Without it no unit is in the plan.
	Systemd bool
	// Units are those that it has loaded.
	Units []systemd.LoadedUnit
	// Processes use files that differ.
	Processes []Process
	// Held are units with a mount namespace that goes on showing the old root, as package live finds them.
	Held []Held
	// Generated are unit files that don't come from the root image.
	Generated []GeneratedUnit
}

// Held is a unit that goes on seeing the old root until it is restarted.
type Held struct {
	Unit string
	// Why says what holds it there, for people: "ProtectSystem= has a mount of /usr of its own".
	Why string
	// Keeps are the names in "/" of which it sees the old tree; without any it sees the old one of all.
	Keeps []string
}

// GeneratedUnit is a unit file outside of the root image, before and after the change. "" is no such file.
type GeneratedUnit struct {
	Name     string
	From, To string
	// Start says that it is to run from now on.
	Start bool
}

// change is what Decide works with: the difference without what local changes hide.
type change struct {
	Input
	entries []difference.Entry
}

func newChange(in Input) *change {
	c := &change{Input: in}
	for _, e := range in.Difference.Entries {
		if e.Kind == difference.Changed && (e.What == difference.Links || e.What == difference.Times) {
			continue
		}
		if !c.local(e.Path) {
			c.entries = append(c.entries, e)
		}
	}
	return c
}

// local reports whether a local change hides the path: one there, or one in the place of a directory above.
func (c *change) local(path string) bool { return c.Local != nil && c.Local(path) }

func (c *change) owner(path string) string {
	if c.Owner == nil {
		return ""
	}
	return c.Owner(path)
}

// errUnread is for a file that nobody can read.
var errUnread = errors.New("its content isn't known")

// read returns the content of a regular file.
func (c *change) read(n *tree.Node) ([]byte, error) {
	switch {
	case n == nil || n.Kind != tree.Regular:
		return nil, errUnread
	case uint64(len(n.Inline)) == n.Size:
		return n.Inline, nil
	case c.Read == nil:
		return nil, errUnread
	}
	return c.Read(n)
}

// below returns the rest of path below a directory, if it is there.
func below(path, dir string) (string, bool) { return strings.CutPrefix(path, dir+"/") }
