package change

import (
	"context"

	"github.com/powernode/powernode-agent/internal/aftercare"
	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/delta"
	"github.com/powernode/powernode-agent/internal/difference"
	"github.com/powernode/powernode-agent/internal/live"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/tree"
)

// Step is a change from one generation to another.
type Step struct {
	// From runs, To shall; while a plan is made the latter has no Number and no RootDigest yet.
	From, To store.Generation
	// FromTree and ToTree are their composed trees, and Difference what turns one into the other.
	FromTree, ToTree *tree.Node
	Difference       *difference.Difference
	// Modules are those of To, proven.
	Modules []*assemble.Proven
	// Replace takes local changes out of the writable layer that lie over something which the step changes.
	Replace bool
	// BreakLocks has it go live although a process holds a lock of a file that it loses by that.
	BreakLocks bool
	// Owner names the module that an absolute path of ToTree, or else of FromTree, comes from.
	Owner func(path string) string
}

// Findings are what a step meets in the running system, and what it calls for there.
type Findings struct {
	// Obstacles are why it can't go live.
	Obstacles []string
	Conflicts []delta.Conflict
	// Replaced are the local changes that the step takes out of the writable layer, with all that is in them.
	Replaced []string
	Settle   *delta.Plan
	// Ties are what processes hold in directories that are replaced, and what doesn't cross over to the new ones.
	Ties      []Tie
	Aftercare *aftercare.Plan
	Remarks   []string

	// fifos says that the writable layer has FIFOs.
	fifos bool
}

// UnitFailure is a unit that a change brought, or changed, and that doesn't work.
type UnitFailure struct {
	Unit string
	// Module is the one that it comes from, "" where that isn't known.
	Module string
	Reason string
}

// System is the running system that a change goes into.
type System interface {
	// Examine says what a step would meet and call for. It changes nothing.
	Examine(ctx context.Context, s Step) (Findings, error)
	// Swap puts the new root beneath the system, with what has to come before, and says what a person should know. An error
	// leaves the old root as it was.
	Swap(ctx context.Context, s Step, f Findings) ([]string, error)
	// After does what the system needs then, and says which units don't work, and which other steps failed, those of Swap too.
	After(ctx context.Context, s Step, f Findings) ([]UnitFailure, []string)
	// Undo takes a swap back and gives the system what it needs for that. It says which steps of that failed.
	Undo(ctx context.Context, s Step, f Findings) ([]string, error)
	// Resume gives the system what a plan asks for, with a generation that runs: where somebody was killed who would have.
	Resume(ctx context.Context, g store.Generation, p *aftercare.Plan) []string
	// Finish ends a change whose generation is the current one, and says which steps of that failed.
	Finish(ctx context.Context) ([]string, error)
	// Root returns the mount of the root: another one is another system, after a soft-reboot.
	Root() (mount.ID, error)
	// Recover brings a swap to its end that somebody left unfinished: forward if the generation that it leads to is the
	// current one, else back. ok is false where there was none.
	Recover(ctx context.Context, current uint64) (r Recovered, ok bool, err error)
}

// Recovered says what became of a change that was left unfinished.
type Recovered struct {
	// Generation runs now; Forward says that it is the one that the change led to.
	Generation uint64
	Forward    bool
	// Remarks are what a person should know.
	Remarks []string
	// CutOff are the mount namespaces that a change which is taken back has cut off from what is mounted later.
	CutOff []live.Namespace
}
