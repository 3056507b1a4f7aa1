package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/powernode/powernode-agent/internal/fault"
)

// The exit codes, for all three programs. The table in docs/exit-codes.md is printed from here.
const (
	ExitOK          = 0
	ExitFailure     = 1
	ExitVerify      = 2
	ExitMount       = 3
	ExitService     = 4
	ExitPlatform    = 5
	ExitRefused     = 6
	ExitDestructive = 7
	ExitPartial     = 8
	ExitInterrupted = 130
)

// ExitRow is one row of the table of exit codes.
type ExitRow struct {
	Code    int
	Meaning string
}

// ExitTable returns the whole table in order.
func ExitTable() []ExitRow {
	return []ExitRow{
		{ExitOK, "done"},
		{ExitFailure, "failed for a reason without a code of its own; wrong flags and arguments too; `owner`: no module has the path"},
		{ExitVerify, "verification said no: a signature, a seal, a digest, the trust policy; `status`: something is damaged"},
		{ExitMount, "a mount, a file system or the disk; `status`: no root of ours is mounted"},
		{ExitService, "an init action or a systemd unit"},
		{ExitPlatform, "the platform or a registry can't be reached, or refuses this caller"},
		{ExitRefused, "refused by policy"},
		{ExitDestructive, "refused because it would destroy something"},
		{ExitPartial, "some of several things failed; the rest is done; `status`: out of step"},
		{9, "puppet: resources failed"},
		{10, "puppet: some resources changed, some failed"},
		{ExitInterrupted, "interrupted by a signal"},
	}
}

var exitOfArea = map[fault.Area]int{
	fault.General:     ExitFailure,
	fault.Input:       ExitFailure,
	fault.Verify:      ExitVerify,
	fault.Mount:       ExitMount,
	fault.Service:     ExitService,
	fault.Platform:    ExitPlatform,
	fault.Policy:      ExitRefused,
	fault.Destructive: ExitDestructive,
	fault.Partial:     ExitPartial,
}

// ExitCode returns the exit code of a command that ended with err.
func ExitCode(err error) int {
	switch {
	case err == nil:
		return ExitOK
	case errors.Is(err, context.Canceled):
		return ExitInterrupted
	default:
		return exitOfArea[fault.AreaOf(err)]
	}
}

// ExitStatus is an error that sets the exit code and prints nothing: for commands whose output
// already says everything, as `status` that is out of step.
type ExitStatus int

// Error returns "exit status N".
func (s ExitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }
