package agentcli

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
)

func bootCommand(app *cli.App) *cobra.Command {
	var config boot.Config
	var health, sources string
	cmd := &cobra.Command{
		Use:   "boot [flags] [-- INIT [ARG...]]",
		Short: "Take this machine from power-on to the init of its composed root",
		Long: `Take this machine from power-on to the init of its composed root: prepare, load modules, bring up the
network, find the disk, identify, enroll, fetch, verify, compose, mount, hand over. One console line
for each stage.

boot must be the first process: of the machine, in its initramfs, or, with --namespace, of PID,
mount and UTS namespaces made for it alone on an ordinary system:

  unshare --fork --pid --mount --uts powernode-agent boot --namespace --persist DIR \
    --identity-file FILE --trust-policy FILE -- /usr/sbin/nginx -g 'daemon off;'

With --sysroot it runs in another's initramfs, makes the root there, and leaves the switch to that
one's first process.

The integrity level is the strongest that kernel and file system give, and never weaker than the
trust policy, boot.yaml and the kernel command line ask for. The machine's first process never ends:
what can't be booted waits in the recovery environment on the console.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("persist") && config.Persist == "" {
				return fault.New(fault.Refuse, fault.Input, "name a directory", "--persist is empty")
			}
			// The console of a machine has other writers than bars can know of.
			shown := *app
			if !config.Namespace {
				shown.Err = unbarred{app.Err}
			}
			progress := shown.NewProgress()
			defer progress.Close()
			only, err := identitySources(sources)
			if err != nil {
				return err
			}
			config.Places.Only = only
			config.Init = args
			config.Health = boot.Gate(health)
			config.Console = progress
			config.Progress = func(name string, total int64) boot.Download { return progress.Start(name, total) }
			return boot.Run(cmd.Context(), config)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&config.Persist, "persist", "", "the directory that outlives the boot (default: /persist, found by powernode.persist)")
	flags.StringVar(&config.Trust, "trust-policy", "/etc/powernode/trust.yaml", "whose signatures count")
	flags.StringVar(&config.Places.IdentityFile, "identity-file", "", "an identity.cfg to read instead of the usual sources")
	identitySourceFlag(cmd, &sources)
	flags.BoolVar(&config.Namespace, "namespace", false, "run as the first process of namespaces made for this boot (for testing)")
	flags.StringVar(&config.Sysroot, "sysroot", "", "make the root at this directory of another's initramfs, and end")
	flags.StringVar(&health, "health", "", "what makes a new generation good: hand-over or service (default: service, with --namespace hand-over)")
	flags.StringVar(&config.UpperSize, "upper-size", "", "size of the writable layer in memory (default 50%)")
	return cmd
}

// unbarred is a terminal on which no bars are drawn. What is to be as large as the terminal finds it by Unwrap.
type unbarred struct{ io.Writer }

// Unwrap returns the terminal.
func (u unbarred) Unwrap() io.Writer { return u.Writer }
