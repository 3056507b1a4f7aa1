package agentcli

import (
	"context"
	"os"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/delta"
	"github.com/powernode/powernode-agent/internal/live"
	"github.com/powernode/powernode-agent/internal/rootfs"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/tree"
)

// localChange says what was done to a path on the node.
type localChange string

// The changes. "" is one that isn't known.
const (
	localNone       localChange = "unchanged"
	localContent    localChange = "changed"
	localAttributes localChange = "attributes" // mode, owner or xattrs alone
	localAdded      localChange = "added"      // no module brings it
	localRemoved    localChange = "removed"    // it, or a directory above it
)

// changedHere returns what the writable layers hold: the root's, and that of a persistent /etc.
func changedHere(ctx context.Context, st *store.Store, root string, facts boot.Facts) (*delta.Delta, error) {
	upper, err := live.OpenUpper(live.Place{Root: root, RunDir: boot.RunDir, Images: st, UpperDir: facts.Root.UpperDir})
	if err != nil {
		return nil, err
	}
	defer upper.Close()
	found, err := delta.Scan(ctx, upper, delta.Limits{Entries: deltaMax})
	if err != nil || facts.Root.Etc != rootfs.Persistent {
		return found, err
	}
	etc, err := os.Open(rootfs.EtcUpper(st.Path()))
	if err != nil {
		return nil, err
	}
	defer etc.Close()
	own, err := delta.Scan(ctx, etc, delta.Limits{Entries: deltaMax})
	if err != nil {
		return nil, err
	}
	// That layer lies over the root's /etc, whatever the root's own layer has there.
	found.Entries = slices.DeleteFunc(found.Entries, func(e delta.Entry) bool { return strings.HasPrefix(e.Path, "/etc/") })
	for _, e := range own.Entries {
		e.Path = "/etc" + e.Path
		found.Entries = append(found.Entries, e)
	}
	slices.SortFunc(found.Entries, func(a, b delta.Entry) int { return strings.Compare(a.Path, b.Path) })
	return found, nil
}

// local says what was done to a path here, by what the writable layer holds.
func (c *composition) local(path string, n *tree.Node) localChange {
	if c.changed == nil {
		return ""
	}
	e, ok := c.changed.Entry(path)
	switch {
	case !ok && n != nil && c.changed.Changed(path):
		// A directory above it hides what the image has.
		return localRemoved
	case !ok:
		return noneIf(n != nil)
	case e.Kind == delta.Whiteout:
		return localRemoved
	case n == nil:
		return localAdded
	case e.Kind == delta.Metacopy:
		return localAttributes
	case e.Kind == delta.Directory && n.Kind == tree.Directory:
		if e.Mode == n.Mode && e.UID == n.UID && e.GID == n.GID {
			return localNone // it is there because of what is in it
		}
		return localAttributes
	}
	return localContent
}

func noneIf(known bool) localChange {
	if known {
		return localNone
	}
	return ""
}

// ofTheMachine returns the directory in "/" that a path lies in, where that isn't the root image's.
func ofTheMachine(path string) string {
	for _, dir := range []string{"/var", "/run", "/tmp", "/dev", "/proc", "/sys", "/persist"} {
		if strings.HasPrefix(path, dir+"/") {
			return dir
		}
	}
	return ""
}
