// Package platformcli is the command line of powernode-platform, the control plane: one file per
// command. It turns flags into calls of the packages that do the work, and prints what they say.
package platformcli

import (
	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
)

// New returns the program's root command.
func New(app *cli.App) *cobra.Command {
	root := app.Root(&cobra.Command{
		Use:   "powernode-platform",
		Short: "The control plane: identities, certificates, modules and assignments of nodes",
	})
	root.AddCommand(
		serveCommand(app),
		app.VersionCommand(),
	)
	return root
}
