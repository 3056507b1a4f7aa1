// Package agentcli is the command line of powernode-agent: one file per command. It turns flags
// into calls of the packages that do the work, and prints what they say.
package agentcli

import (
	"path/filepath"

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
		guardCommand(app),
		adoptCommand(app),
		finishCommand(app),
		doTaskCommand(app),
		audited(app, softRebootCommand(app)),
		reloadCommand(app),
		audited(app, enrollCommand(app)),
		verifyCommand(app),
		statusCommand(app),
		ownerCommand(app),
		audited(app, updateCommand(app)),
		audited(app, syncCommand(app)),
		generationsCommand(app),
		audited(app, gcCommand(app)),
		audited(app, attachCommand(app)),
		audited(app, detachCommand(app)),
		audited(app, rollbackCommand(app)),
		audited(app, initCommand(app)),
		unitHelperCommand(app),
		introspectCommand(app),
		app.VersionCommand(),
	)
	return root
}

// Arguments returns the arguments that a program started as argv is to run with. The kernel starts
// the first program of an initramfs as /init, with all that it didn't understand of its own command
// line: that is a boot, whatever the arguments.
func Arguments(pid int, argv []string) []string {
	switch {
	case pid == 1 && len(argv) > 0 && filepath.Base(argv[0]) == "init":
		return []string{"boot"}
	case len(argv) == 0:
		return nil
	default:
		return argv[1:]
	}
}
