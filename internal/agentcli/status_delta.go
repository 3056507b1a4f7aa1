package agentcli

import (
	"context"
	"fmt"
	"slices"

	"github.com/powernode/powernode-agent/internal/aftercare"
	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/delta"
	"github.com/powernode/powernode-agent/internal/live"
	"github.com/powernode/powernode-agent/internal/store"
)

// deltaDoc is what the writable layer holds that the root image doesn't.
type deltaDoc struct {
	// Files counts names without directories, Bytes what they take; More says that there are more than was counted.
	Files int    `json:"files"`
	Bytes uint64 `json:"bytes"`
	More  bool   `json:"more,omitempty"`
	// Conflicts are local changes of what a live change since the boot changed, too: the local ones are seen. At most
	// conflictsMax are named.
	Conflicts     []delta.Conflict `json:"conflicts,omitempty"`
	MoreConflicts int              `json:"more_conflicts,omitempty"`
}

// What status looks at and names at most.
const (
	deltaMax     = 200_000
	conflictsMax = 50
	processesMax = 50
)

// delta adds what was changed here. What can't be found out is a remark: nothing hangs on it.
func (d *statusDoc) delta(ctx context.Context, root string, st *store.Store, facts boot.Facts) {
	if len(d.Mounts) == 0 {
		return
	}
	upper, err := live.OpenUpper(live.Place{Root: root, RunDir: boot.RunDir, Images: st, UpperDir: facts.Root.UpperDir})
	if err != nil {
		d.unknown("what was changed here", err)
		return
	}
	defer upper.Close()
	size, err := delta.SizeOf(ctx, upper, deltaMax)
	if err != nil {
		d.unknown("what was changed here", err)
		return
	}
	d.Delta = &deltaDoc{Files: size.Files, Bytes: size.Bytes, More: size.More}
	booted := facts.Booted()
	if d.RootDigest.IsZero() || booted.IsZero() || booted == d.RootDigest {
		return
	}
	found, err := delta.Scan(ctx, upper, delta.Limits{Entries: deltaMax})
	if err != nil {
		d.unknown("which local changes lie over others of the image", err)
		return
	}
	from, err := change.ReadTree(st, booted)
	if err != nil {
		d.unknown("which local changes lie over others of the image", err)
		return
	}
	to, err := change.ReadTree(st, d.RootDigest)
	if err != nil {
		d.unknown("which local changes lie over others of the image", err)
		return
	}
	conflicts := slices.DeleteFunc(delta.Conflicts(found, from, to), func(c delta.Conflict) bool { return aftercare.Derived(c.Path) })
	shown := min(len(conflicts), conflictsMax)
	d.Delta.Conflicts, d.Delta.MoreConflicts = conflicts[:shown], len(conflicts)-shown
}

// unknown remarks that something isn't known.
func (d *statusDoc) unknown(what string, err error) {
	d.Remarks = append(d.Remarks, fmt.Sprintf("%s isn't known: %v", what, err))
}

// processes adds those that go on with files from before a live change.
func (d *statusDoc) processes(ctx context.Context, root string) error {
	if len(d.Mounts) < 2 {
		return nil // nothing changed since the boot
	}
	view, err := aftercare.ReadView(root)
	if err != nil {
		d.unknown("which processes use old files", err)
		return nil
	}
	found, err := aftercare.Scan{View: view}.Stale(ctx)
	if err != nil {
		return err
	}
	shown := min(len(found), processesMax)
	d.Processes, d.MoreProcesses = found[:shown], len(found)-shown
	return nil
}
