// Package agentcli is the command line of powernode-agent: one file per command. It turns flags
// into calls of the packages that do the work, and prints what they say.
package agentcli

import (
	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
)

// New returns the program's root command.
func New(app *cli.App) *cobra.Command {
	root := app.Root(&cobra.Command{
		Use:   "powernode-agent",
		Short: "Everything that happens on a node: boot, verify, compose, run, report",
	})
	root.AddCommand(
		bootCommand(app),
		serviceCommand(app),
		enrollCommand(app),
		verifyCommand(app),
		statusCommand(app),
		introspectCommand(app),
		app.VersionCommand(),
	)
	return root
}
