package agentcli

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/rootfs"
)

// adoptCommand is no command for people: the agent's unit runs it before the service, with rights that the
// service hasn't, to make the facts of a soft-reboot those of the boot.
func adoptCommand(*cli.App) *cobra.Command {
	return &cobra.Command{
		Use:    "adopt",
		Short:  "Take the facts of a soft-reboot over",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := rootfs.Adopt(boot.RunDir, boot.FactsName)
			// Also where an earlier one was killed in between. A system that no boot of ours began has no facts.
			if _, unread := boot.ReadFacts("/"); unread == nil {
				err = errors.Join(err, boot.Switched("/"))
			}
			return err
		},
	}
}
