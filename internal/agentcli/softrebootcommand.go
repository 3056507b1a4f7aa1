package agentcli

import (
	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health/restart"
)

// softRebootName is the command's name.
const softRebootName = "soft-reboot"

// softRebootCommand is no command for people, who have update --reboot soft: it does what the platform's task of that kind asks for, with
// rights that the service hasn't.
func softRebootCommand(app *cli.App) *cobra.Command {
	var f updateFlags
	cmd := &cobra.Command{
		Use:    softRebootName,
		Short:  "Restart all but the kernel, into what is staged",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if kind, why := (restart.Machine{}).Kind(cmd.Context()); kind != restart.Soft {
				return fault.New(fault.Refuse, fault.Service, "restart the whole machine", "soft-reboot: %s", why)
			}
			staged, err := stagedGeneration(f.stateDir)
			if err != nil {
				return err
			}
			if staged == 0 {
				return fault.New(fault.Refuse, fault.Service, "stage a change first", "soft-reboot: nothing is staged for it")
			}
			if err := f.softReboot(cmd.Context(), staged); err != nil {
				return err
			}
			return app.Print(finishDoc{}, finishDoc{}.table)
		},
	}
	stateFlag(cmd, &f.stateDir)
	cmd.Flags().StringVar(&f.trust, "trust-policy", boot.TrustPath, "whose signatures count")
	return cmd
}
