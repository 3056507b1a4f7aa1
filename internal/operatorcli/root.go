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
	conn := &connection{app: app}
	root.PersistentFlags().StringVar(&conn.path, "config", "",
		"the platform's operator.json (default $POWERNODE_CONFIG, then ~/.config/powernode/operator.json)")
	root.AddCommand(
		group("key", "Make signing keys", keyGenerateCommand(app)),
		group("module", "Build and publish modules", moduleBuildCommand(app), modulePublishCommand(app, conn), moduleListCommand(app, conn)),
		imageCommand(app),
		group("node", "Look after nodes", nodeCreateCommand(app, conn), nodeListCommand(app, conn), nodeShowCommand(app, conn),
			nodeRevokeCommand(app, conn), nodeApproveCommand(app, conn), nodeConfigCommand(app, conn)),
		group("token", "Make tokens of machines and of operators", tokenCreateCommand(app, conn), tokenOperatorCommand(app, conn)),
		taskCommand(app, conn),
		eventCommand(app, conn),
		auditCommand(app, conn),
		claimCommand(app, conn),
		caCommand(app, conn),
		assignCommand(app, conn),
		unassignCommand(app, conn),
		app.VersionCommand(),
	)
	return root
}

// group returns a command that only holds others.
func group(name, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: name, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(commands...)
	return cmd
}
