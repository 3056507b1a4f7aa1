package agentcli

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
)

func rollbackCommand(app *cli.App) *cobra.Command {
	var f changeFlags
	f.request.Kind = change.Rollback
	cmd := &cobra.Command{
		Use:   "rollback [GENERATION]",
		Short: "Go back to the modules of an earlier generation, live where possible",
		Long: `Make a generation of the modules of an earlier one, and have it run: live where possible, else at the
next boot. Without a number it is the last one before what runs that is known to be good; while a
change waits to be confirmed it is what ran before that one. The modules
that run now aren't taken up again by themselves: powernode-agent update refuses them until the
platform assigns others, or --retry is given. What was attached and detached since is forgotten.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				n, err := strconv.ParseUint(args[0], 10, 64)
				if err != nil || n == 0 {
					return fault.New(fault.Refuse, fault.Input, "powernode-agent generations lists them", "%.40q is no generation", args[0])
				}
				f.request.Generation = n
			}
			doc, err := f.run(cmd.Context(), app)
			if err != nil {
				return err
			}
			return f.finish(app, doc)
		},
	}
	f.changing(cmd)
	return cmd
}
