// Package operatorcli is the command line of powernode, the operator's program: one file per
// command. It turns flags into calls of the packages that do the work, and prints what they say.
package operatorcli

import (
	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
)

// New returns the program's root command.
func New(app *cli.App) *cobra.Command {
	root := app.Root(&cobra.Command{
		Use:   "powernode",
		Short: "Build, seal, sign and publish modules; look after nodes",
	})
	root.AddCommand(
		app.VersionCommand(),
	)
	return root
}
