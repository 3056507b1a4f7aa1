package agentcli

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"sync"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health"
	"github.com/powernode/powernode-agent/internal/health/restart"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodeclient"
	"github.com/powernode/powernode-agent/internal/nodehttp"
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
the machine is. It keeps the node's certificate: rotates it in time, renews one that has ended, follows
the platform's CA. It outlives every outage of the platform, tells systemd when it is ready and that it
is alive, and ends on SIGTERM. A generation that isn't known to be good is judged here: see
"Never stranded" in docs/boot.md. The platform is told how the boots went, and a file that the kernel
finds damaged (fs-verity) is fetched again. A live change that was interrupted is finished or undone, and
one that waits in vain for its confirmation is taken back. Machine ID, host name and SSH host keys are
kept for the next boots, and it says when the writable layer of the root fills up.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLog(logFormat, app.Err)
			if err != nil {
				return err
			}
			credentials := newCertificateKeeper(stateDir, log)
			platform := &nodePlatform{keeper: credentials}
			defer platform.close()
			facts, factsErr := boot.ReadFacts("/")
			// On a node that booted, credentials that don't serve may do so later, and there is a
			// generation to judge.
			if err := platform.load(); err != nil && factsErr != nil {
				return err
			}
			notifier, watchdog, err := runtime.Systemd()
			if err != nil {
				return err
			}
			config := runtime.Config{
				Platform: platform, State: &nodeState{stateDir, new(mountedMemo)}, AgentVersion: version.Get().Version,
				Certificate: runtime.NewCertificate(credentials, log), Notifier: notifier, Watchdog: watchdog, Log: log,
			}
			if factsErr == nil {
				config.Beside = []runtime.Loop{
					runtime.BootReports{Source: &bootReports{stateDir: stateDir, facts: facts}, Platform: platform, Log: log},
				}
				config.Beside = append(config.Beside, newUnfinished(stateDir, platform, log).loop())
				loops, remarks := upkeep{root: "/", stateDir: stateDir, facts: facts, log: log}.loops(cmd.Context())
				config.Beside, config.Remarks = append(config.Beside, loops...), remarksOf(remarks, lastRemarks)
				if facts.Level == mount.Enforced {
					// At other levels the kernel checks nothing, and so tells nothing.
					keeper := newKeeper(stateDir, facts, log)
					config.Beside, config.Remarks = append(config.Beside, keeper), remarksOf(keeper.Remarks, remarks, lastRemarks)
				}
				config.Gate = health.New(health.Config{
					Settings: facts.Health, Generation: facts.Generation, StateDir: stateDir, RunDir: boot.RunDir, Log: log,
					Restart: func(ctx context.Context) error { return restart.Machine{}.Now(ctx, restart.Full) },
				})
			}
			return runtime.New(config).Run(cmd.Context())
		},
	}
	stateFlag(cmd, &stateDir)
	cmd.Flags().StringVar(&logFormat, "log-format", "text", "how to log: text or json")
	return cmd
}

// newCertificateKeeper returns what keeps the node's certificate while the service runs.
func newCertificateKeeper(stateDir string, log *slog.Logger) *enroll.Keeper {
	return enroll.NewKeeper(enroll.Options{
		Dir: boot.PKIDir(stateDir), Clock: openClock(stateDir), KeyKind: policyKeyKind(boot.TrustPath),
		AgentVersion: version.Get().Version, DMIUUID: runtime.ReadMachine("/sys").DMIUUID, Log: log,
	})
}

// nodePlatform is the platform by the credentials on the disk, which need not be there when the service
// starts: a node may be enrolled while it runs. It may be used by several goroutines.
type nodePlatform struct {
	keeper *enroll.Keeper

	mu     sync.Mutex
	client *nodeclient.Client
}

func (p *nodePlatform) load() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client != nil {
		return nil
	}
	client, err := nodeclient.New(nodeclient.Config{
		Credentials: p.keeper, HTTP: nodehttp.Options{Now: p.keeper.Now}, Prepare: p.keeper.Prepare, Heard: p.keeper.Heard,
	})
	if err != nil {
		return err
	}
	p.client = client
	return nil
}

func (p *nodePlatform) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client != nil {
		p.client.Close()
	}
}

// Heartbeat implements runtime.Platform.
func (p *nodePlatform) Heartbeat(ctx context.Context, hb nodeapi.Heartbeat) (*nodeapi.HeartbeatResponse, error) {
	if err := p.load(); err != nil {
		return nil, err
	}
	return p.client.Heartbeat(ctx, hb)
}

// Modules implements reconcile.Platform.
func (p *nodePlatform) Modules(ctx context.Context) (*nodeapi.ModuleList, error) {
	if err := p.load(); err != nil {
		return nil, err
	}
	return p.client.Modules(ctx)
}

// BootReport implements runtime.BootPlatform.
func (p *nodePlatform) BootReport(ctx context.Context, report nodeapi.BootReport) error {
	if err := p.load(); err != nil {
		return err
	}
	return p.client.BootReport(ctx, report)
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
type nodeState struct {
	stateDir string
	// seen is what was found out of mounts that haven't changed since.
	seen *mountedMemo
}

// State implements runtime.StateSource.
func (n *nodeState) State(context.Context) (runtime.State, error) {
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
	digest, err := n.seen.root("/", st, facts.RootDigest)
	if err != nil {
		return state, err
	}
	state.RootDigest = digest.String()
	generation, err := st.Generation(facts.Generation)
	if errors.Is(err, fs.ErrNotExist) || err == nil && generation.RootDigest != digest {
		return state, errors.Join(err, errors.New("the mounted root is not the one of the booted generation"))
	}
	if err != nil {
		return state, err
	}
	state.Generation = generation.Number
	for _, m := range generation.Modules {
		if m.ID != "" { // the platform knows nothing of what was attached here
			state.Modules[m.ID] = m.ManifestDigest
		}
	}
	return state, nil
}
