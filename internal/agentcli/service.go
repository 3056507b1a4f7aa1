package agentcli

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodeclient"
	"github.com/powernode/powernode-agent/internal/runtime"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/version"
)

func serviceCommand(app *cli.App) *cobra.Command {
	var stateDir, logFormat string
	cmd := &cobra.Command{
		Use:   "service",
		Short: "Stay on the node: report to the platform until told to stop",
		Long: `Stay on the node and report to the platform: what is mounted, read from the kernel's tables, and how
the machine is. It outlives every outage of the platform, tells systemd when it is ready and that it
is alive, and ends on SIGTERM.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLog(logFormat, app.Err)
			if err != nil {
				return err
			}
			credentials, err := enroll.Load(boot.PKIDir(stateDir), time.Now())
			if err != nil {
				return err
			}
			client, err := nodeclient.New(nodeclient.Config{Credentials: credentials})
			if err != nil {
				return err
			}
			defer client.Close()
			notifier, watchdog, err := runtime.Systemd()
			if err != nil {
				return err
			}
			return runtime.New(runtime.Config{
				Platform: client, State: nodeState{stateDir}, AgentVersion: version.Get().Version,
				Notifier: notifier, Watchdog: watchdog, Log: log,
			}).Run(cmd.Context())
		},
	}
	stateFlag(cmd, &stateDir)
	cmd.Flags().StringVar(&logFormat, "log-format", "text", "how to log: text or json")
	return cmd
}

// newLog returns the logger that --log-format names.
func newLog(format string, out io.Writer) (*slog.Logger, error) {
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(out, nil)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(out, nil)), nil
	}
	return nil, fault.New(fault.Refuse, fault.Input, "use text or json", "unknown log format %q", format)
}

// nodeState tells the platform what really runs: the root is read from the kernel's tables, and
// the modules are those of the generation whose root that is.
type nodeState struct{ stateDir string }

// State implements runtime.StateSource.
func (n nodeState) State(context.Context) (runtime.State, error) {
	union, err := mount.UnionAt("/")
	if err != nil {
		// A node that didn't boot a union says so, and the heartbeat goes out all the same.
		return runtime.State{Mount: nodeapi.MountUnmounted}, err
	}
	state := runtime.State{
		RootDigest: union.Digest.String(), Level: string(union.Level), Mount: nodeapi.MountMounted, Modules: map[string]string{},
	}
	facts, err := boot.ReadFacts("/")
	if err != nil {
		return state, err
	}
	st, err := store.Open(n.stateDir, store.Options{ReadOnly: true})
	if err != nil {
		return state, err
	}
	defer st.Close()
	generation, err := st.Generation(facts.Generation)
	if errors.Is(err, fs.ErrNotExist) || err == nil && generation.RootDigest != union.Digest {
		return state, errors.Join(err, errors.New("the mounted root is not the one of the booted generation"))
	}
	if err != nil {
		return state, err
	}
	state.Generation = generation.Number
	for _, m := range generation.Modules {
		state.Modules[m.ID] = m.ManifestDigest
	}
	return state, nil
}
