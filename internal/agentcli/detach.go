package agentcli

import (
	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/cli"
)

func detachCommand(app *cli.App) *cobra.Command {
	var f changeFlags
	f.request.Kind = change.Detach
	cmd := &cobra.Command{
		Use:   "detach MODULE...",
		Short: "Take modules away from what runs, live where possible",
		Long: `Take modules, named by their name or ID, away from what runs. Everything else stays as it is. One that
the platform assigns stays away in updates and restarts, until powernode-agent attach takes that back.`,
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
	cmd.Flags().BoolVar(&f.request.RemoveMost, "remove-most", false, "let more than half of the modules go at once")
	return cmd
}
