package agentcli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health/guard"
	"github.com/powernode/powernode-agent/internal/health/restart"
)

// guardCommand is no command for people: a boot starts it, by guard.Start.
func guardCommand(*cli.App) *cobra.Command {
	config := guard.Config{Reboot: restart.Hard}
	cmd := &cobra.Command{
		Use:    "guard",
		Short:  "Restart the machine unless this boot is found good in time",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !strings.HasPrefix(os.Args[0], "@") || config.After <= 0 {
				return fault.New(fault.Refuse, fault.Input, "", "only a boot starts the guard: it restarts the machine")
			}
			// The rest is best effort: a guard without a log, or in the control group of its starter, is one too.
			_ = guard.LeaveSession("/sys/fs/cgroup")
			if log, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0); err == nil {
				defer log.Close()
				config.Log = io.Writer(log)
			}
			if starter := guard.Starter(); starter != nil {
				config.Ready = starter
			}
			err := guard.Run(cmd.Context(), config)
			if err != nil && config.Log != nil {
				fmt.Fprintf(config.Log, "<3>powernode-agent: %v; nobody restarts the machine if this boot hangs\n", err)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&config.RunDir, "run", boot.RunDir, "the directory of the running boot")
	cmd.Flags().Uint64Var(&config.Generation, "generation", 0, "the generation that the boot is of")
	cmd.Flags().DurationVar(&config.After, "after", 0*time.Second, "how long the boot has")
	return cmd
}
