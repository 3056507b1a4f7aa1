package agentcli

import (
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
)

// reloadCommand is no command for people, who have systemctl reload: the agent's unit runs it, on systems too that have no kill(1).
func reloadCommand(app *cli.App) *cobra.Command {
	return &cobra.Command{
		Use:    "reload",
		Short:  "Have the service read its configuration again",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			// systemd.exec(5): the unit's main process.
			pid, err := strconv.Atoi(app.Getenv("MAINPID"))
			if err != nil || pid <= 1 {
				return fault.New(fault.Refuse, fault.Input, "use systemctl reload powernode-agent", "$MAINPID names no process")
			}
			if err := syscall.Kill(pid, hangup); err != nil {
				return fault.New(fault.Retry, fault.Service, "systemctl status powernode-agent", "have process %d read its configuration again: %w", pid, err)
			}
			return nil
		},
	}
}
