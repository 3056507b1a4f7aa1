package change

import (
	"fmt"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/change/desired"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/reconcile"
)

// Kind is what is asked for.
type Kind string

// The kinds.
const (
	// Update follows the platform's list and the administrator's word.
	Update Kind = "update"
	// Attach adds modules to what is staged, or else to what runs, Detach takes some away. Everything else stays as it is.
	Attach Kind = "attach"
	Detach Kind = "detach"
	// Rollback makes a generation of an old one's modules.
	Rollback Kind = "rollback"
)

// Request says what to change, and how.
type Request struct {
	Kind Kind
	// Modules are names or IDs; of Attach references, too: "host/path[:tag|@digest]".
	Modules []string
	// Priority is the effective one of a module that is attached by its reference.
	Priority int
	// Generation is the one to roll back to; 0 is the last that was good before what runs.
	Generation uint64

	// DryRun changes nothing.
	DryRun bool
	// Stage leaves what runs alone, whatever could go live.
	Stage bool
	// Retry tries a set of modules again that failed before, or that somebody went back from.
	Retry bool
	// RemoveMost and AllowDowngrade say that these are meant.
	RemoveMost, AllowDowngrade bool
	// LocalChanges is what becomes of local changes of what is changed, too; "" keeps them.
	LocalChanges LocalChanges
	// BreakLocks lets a change go live although processes hold locks of files in directories that it replaces.
	BreakLocks bool
	// AllFiles has every file in the plan instead of the first ones.
	AllFiles bool
	// exact goes back to Generation itself, with the word that counted then.
	exact *desired.Local
	// bad is why what runs isn't to be taken up again once that is done; "" where it may.
	bad string

	// Confirm is the time within which the platform has to be reached after a live change, or it is taken back; 0 asks for nothing.
	Confirm time.Duration
}

// cause is what the generation's record says made it.
func (r Request) cause() string {
	c := string(r.Kind)
	switch {
	case r.Kind == Rollback && r.Generation != 0:
		c += fmt.Sprintf(" to %d", r.Generation)
	case len(r.Modules) > 0:
		c += " " + strings.Join(r.Modules, " ")
	}
	const most = 200
	if len(c) > most {
		c = c[:most] + "…"
	}
	return fault.OneLine(c)
}

// Outcome says what a change came to.
type Outcome string

// The outcomes.
const (
	// InStep: what runs is what is wanted, and nothing else is staged.
	InStep Outcome = "in step"
	// WentLive: the new generation runs.
	WentLive Outcome = "live"
	// Staged: a generation of what is wanted is staged for the next boot. AlreadyStaged: it was before.
	Staged        Outcome = "staged"
	AlreadyStaged Outcome = "already staged"
	// Withdrawn: what runs is wanted again, and what was staged isn't any more.
	Withdrawn Outcome = "withdrawn"
	// TakenBack: it went live, wasn't confirmed in time, and what ran before runs again.
	TakenBack Outcome = "taken back"
	// WouldGoLive, WouldStage and WouldWithdraw are what would be, of a dry run.
	WouldGoLive   Outcome = "would go live"
	WouldStage    Outcome = "would be staged"
	WouldWithdraw Outcome = "would be withdrawn"
)

// Result is what a change did, or would do. Its JSON is documented in docs/operations.md.
type Result struct {
	Outcome Outcome `json:"outcome"`
	DryRun  bool    `json:"dry_run"`
	// From is the generation that ran and its root digest; 0 where there is none.
	From           uint64          `json:"from_generation"`
	FromRootDigest fsverity.Digest `json:"from_root_digest"`
	// Generation is that of what is wanted, 0 in a dry run; RootDigest is known there too, once a plan was made.
	Generation uint64          `json:"generation,omitempty"`
	RootDigest fsverity.Digest `json:"root_digest"`
	// Expected is the root digest that the platform computed, where the change is of its list alone.
	Expected fsverity.Digest `json:"expected_root_digest"`
	Changes  []Change        `json:"changes"`
	// Failed are the modules that can't be used, and what takes their places.
	Failed []Failure `json:"failed,omitempty"`
	// Detached are modules that the platform assigns and that were detached here.
	Detached []string `json:"detached,omitempty"`
	// Plan is missing where there is nothing to do.
	Plan   *Plan            `json:"plan,omitempty"`
	Pulled reconcile.Pulled `json:"pulled"`
	// Mended are modules that were damaged in the store and are whole again.
	Mended []string `json:"mended,omitempty"`
	// Undone are the steps that failed after the change, each in a sentence: it is done, in part.
	Undone []string `json:"undone,omitempty"`
	// ConfirmBy is until when the platform has to be reached, where that was asked for and didn't happen yet.
	ConfirmBy time.Time `json:"confirm_by,omitzero"`
	Remarks   []string  `json:"remarks,omitempty"`

	// window is the deadline of its confirmation, by which it is found again.
	window time.Duration
}

// Change is one difference between the generation that runs and what is wanted.
type Change struct {
	// Kind is "added", "changed" or "removed".
	Kind   string           `json:"change"`
	Name   string           `json:"name"`
	Origin reconcile.Origin `json:"origin"`
	// From and To are versions, with the digests of their manifests. The versions may be the same: of
	// a module that was built again, or got another priority.
	From       string `json:"from_version,omitempty"`
	To         string `json:"to_version,omitempty"`
	FromDigest string `json:"from_digest,omitempty"`
	ToDigest   string `json:"to_digest,omitempty"`
	// Size is what its layers have, compressed, in bytes, where they aren't in the store; only a dry run tells.
	Size int64 `json:"to_pull_bytes,omitempty"`
}

// Failure is a module that can't be used.
type Failure struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Reason  string `json:"reason"`
	// Kept is the version that stays in its place; "" where the module is new, and so left out.
	Kept string `json:"kept_version,omitempty"`
	// Unreached says that its registry couldn't be reached, or wasn't well: nothing is said of the module, which may be had another time.
	Unreached bool `json:"unreached,omitempty"`
}
