package agentcli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health/restart"
)

// updateFlags are the flags of update.
type updateFlags struct {
	changeFlags
	reboot string
}

func updateCommand(app *cli.App) *cobra.Command {
	var f updateFlags
	f.request.Kind = change.Update
	cmd := &cobra.Command{
		Use:   "update",
		Short: "Run what the platform assigns now, live where possible",
		Long: `Ask the platform what this node should run, fetch and prove it, compose it, and have it run: live,
beneath the running system, where nothing of it asks for a restart; else it is staged for the next
boot, where it is tried and goes back by itself if it isn't good. The next boot tries what went live
in the same way. A module that is refused stays as it runs, and keeps no other back; the exit code is
8 then. Modules that failed their trial together are refused, and so are those that somebody rolled
back from, unless --retry says to try once more. What was attached and detached here stays so.

Where nothing is to be changed, what runs is checked instead, and what is damaged fetched again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.checkReboot(); err != nil {
				return err
			}
			doc, err := f.run(cmd.Context(), app)
			if err != nil {
				return err
			}
			if f.reboot != noRestart && (doc.Outcome == change.Staged || doc.Outcome == change.AlreadyStaged) {
				doc.Restart = f.kind(cmd.Context(), doc)
			}
			err = f.finish(app, doc)
			if doc.Restart != noRestart {
				if err := f.restart(cmd.Context(), doc); err != nil {
					return err
				}
			}
			return err
		},
	}
	f.changing(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&f.request.Retry, "retry", false, "try modules again that failed their trial, or that somebody rolled back from")
	flags.BoolVar(&f.request.RemoveMost, "remove-most", false, "let more than half of the modules go at once")
	flags.BoolVar(&f.request.AllowDowngrade, "allow-downgrade", false, "let modules go below the highest version that was current here")
	flags.StringVar(&f.reboot, "reboot", noRestart, "stage it and restart into it: auto (the quickest way), soft, full or none")
	return cmd
}

// noRestart leaves it to the next boot, quickRestart takes the quickest way there is.
const (
	noRestart    = "none"
	quickRestart = "auto"
)

// checkReboot refuses what nobody can mean. Who restarts the machine wants nothing live.
func (f *updateFlags) checkReboot() error {
	switch f.reboot {
	case noRestart:
		return nil
	case quickRestart, string(restart.Soft), string(restart.Full):
	default:
		return fault.New(fault.Refuse, fault.Input, "use auto, soft, full or none", "--reboot %q", f.reboot)
	}
	f.request.Stage = true
	if f.request.DryRun {
		return nil
	}
	// Nobody means to restart a machine that isn't a node.
	if _, err := boot.ReadFacts("/"); err != nil {
		return fault.New(fault.Refuse, fault.Input, "leave --reboot out", "restart this machine: it wasn't booted by powernode-agent: %w", err)
	}
	return nil
}

// kind returns how the machine is going to restart.
func (f *updateFlags) kind(ctx context.Context, doc *changeDoc) string {
	if f.reboot != quickRestart {
		return f.reboot
	}
	kind, why := restart.Machine{}.Kind(ctx)
	if why != "" {
		doc.Remarks = append(doc.Remarks, "the whole machine restarts: "+why)
	}
	return string(kind)
}

// restart restarts the machine into what is staged. A soft-reboot that can't be prepared becomes a full
// one where the person left the choice to us.
func (f *updateFlags) restart(ctx context.Context, doc *changeDoc) error {
	if doc.Restart == string(restart.Soft) {
		err := f.softReboot(ctx, doc.Generation)
		if err == nil || f.reboot != quickRestart || fault.KindOf(err) == fault.Refuse {
			return err
		}
	}
	return restart.Machine{}.Now(ctx, restart.Full)
}
