package agentcli

import (
	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/cli"
)

func attachCommand(app *cli.App) *cobra.Command {
	var f changeFlags
	f.request.Kind = change.Attach
	cmd := &cobra.Command{
		Use:   "attach MODULE...",
		Short: "Add modules to what runs, live where possible",
		Long: `Add modules to what runs. MODULE is the name or ID of one that the platform assigns and that was
detached here, or that was assigned since the last update; or HOST/REPOSITORY[:TAG|@DIGEST] of any
other, which the trust policy has to accept like all. Everything else stays as it is, and updates and
restarts don't undo it: powernode-agent detach does.

It has the lowest priority unless --priority gives it another one, and so takes no file from what the
platform assigns.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.request.Modules = args
			doc, err := f.run(cmd.Context(), app)
			if err != nil {
				return err
			}
			return f.finish(app, doc)
		},
	}
	f.changing(cmd)
	cmd.Flags().IntVar(&f.request.Priority, "priority", 0, "the effective priority of a module that is named by its repository: higher wins")
	cmd.Flags().BoolVar(&f.request.AllowDowngrade, "allow-downgrade", false, "let modules go below the highest version that was current here")
	return cmd
}
