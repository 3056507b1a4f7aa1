package agentcli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health"
	"github.com/powernode/powernode-agent/internal/health/restart"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/runtime"
	"github.com/powernode/powernode-agent/internal/runtime/journal"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/version"
)

func serviceCommand(app *cli.App) *cobra.Command {
	f := serviceFlags{app: app}
	cmd := &cobra.Command{
		Use:   "service",
		Short: "Stay on the node: report to the platform and do what it asks for, until told to stop",
		Long: `Stay on the node and report to the platform: what is mounted, read from the kernel's tables, and how
the machine is. It does the platform's tasks, each as it is declared: again, or at most once; brings the
node in step when what the platform says of it changes; and tells it what happened here. What needs more
rights than the service has, systemd runs as a unit of its own.

It keeps the node's certificate: rotates it in time, renews one that has ended, follows
the platform's CA. It outlives every outage of the platform, tells systemd when it is ready and that it
is alive, reads credentials again on SIGHUP, and ends on SIGTERM. A generation that isn't known to be good is judged here: see
"Never stranded" in docs/boot.md. The platform is told how the boots went, and a file that the kernel
finds damaged (fs-verity) is fetched again. A live change that was interrupted is finished or undone, and
one that waits in vain for its confirmation is taken back. Machine ID, host name and SSH host keys are
kept for the next boots, and it says when the writable layer of the root fills up.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context()) },
	}
	stateFlag(cmd, &f.stateDir)
	flags := cmd.Flags()
	flags.StringVar(&f.logFormat, "log-format", "auto", "how to log: text, json, or auto: into systemd's journal with its fields where that is listening, else text")
	flags.StringVar((*string)(&f.reconcile), "reconcile", string(reconcileDefault(app.Getenv)), "how to follow what the platform says of the node: live, stage or off")
	flags.StringVar(&f.metrics.listen, "metrics", "", "answer Prometheus at unix:PATH or 127.0.0.1:PORT")
	flags.StringVar(&f.metrics.textfile, "metrics-textfile", "", "write the metrics into a file, as for the node exporter: an absolute path that ends with .prom")
	flags.BoolVar(&f.once, "once", false, "do one round of everything and end: for tests, and for nodes that a timer wakes")
	return cmd
}

// serviceFlags are the settings of a service.
type serviceFlags struct {
	app                 *cli.App
	stateDir, logFormat string
	reconcile           reconcileMode
	once                bool
	metrics             metricsFlags
}

// run serves until ctx ends.
func (f *serviceFlags) run(ctx context.Context) error {
	log, err := newLog(f.logFormat, f.app)
	if err != nil {
		return err
	}
	if err := f.reconcile.check(); err != nil {
		return err
	}
	unlock, err := lockService(f.stateDir, log)
	if err != nil {
		return err
	}
	defer unlock()
	s, err := f.assemble(ctx, log)
	if err != nil {
		return err
	}
	defer s.close()
	loops, err := f.metrics.loops(s)
	if err != nil {
		return err
	}
	s.config.Beside = append(s.config.Beside, loops...)
	service := runtime.New(s.config)
	if f.once {
		return s.once(ctx, service)
	}
	s.work.service.Store(service)
	defer onHangup(ctx, func() { s.reload(ctx, service) })()
	return service.Run(ctx)
}

// assembled is a service that is ready to run.
type assembled struct {
	config   runtime.Config
	platform *nodePlatform
	work     *platformWork
	// boots tells of the node's boots; nil on a machine that no agent booted.
	boots *runtime.BootReports
}

func (s *assembled) close() {
	s.work.close()
	s.platform.close()
}

// reload has what the service goes by read again: credentials and the trust policy are, each time that they are used.
func (s *assembled) reload(ctx context.Context, service *runtime.Service) {
	service.Reload(ctx)
	if s.work.reconcile != nil {
		s.work.reconcile.Ask()
	}
}

// once does one round of everything: what the platform has for the node is done, and it is told. The error is of what couldn't be asked for, kept or
// told; not of what a task has come to.
func (s *assembled) once(ctx context.Context, service *runtime.Service) error {
	if _, err := service.Once(ctx); err != nil {
		return err
	}
	errs := slices.Clone(s.work.missing)
	if s.boots != nil {
		errs = append(errs, s.boots.Once(ctx))
	}
	if s.work.tasks != nil {
		errs = append(errs, s.work.tasks.Once(ctx))
	}
	if s.work.reconcile != nil {
		errs = append(errs, s.work.reconcile.Once(ctx))
	}
	if s.work.events != nil {
		errs = append(errs, s.work.events.Once(ctx))
	}
	// What runs now may be another than at the beginning.
	_, err := service.Once(ctx)
	return errors.Join(append(errs, err)...)
}

// assemble puts the service together.
func (f *serviceFlags) assemble(ctx context.Context, log *slog.Logger) (*assembled, error) {
	credentials := newCertificateKeeper(f.stateDir, log)
	platform := newNodePlatform(credentials)
	facts, factsErr := boot.ReadFacts("/")
	booted := factsErr == nil
	// On a node that booted, credentials that don't serve may do so later, and there is a
	// generation to judge.
	if err := platform.load(); err != nil && !booted {
		return nil, err
	}
	notifier, watchdog, err := runtime.Systemd()
	if err != nil {
		return nil, err
	}
	work := newPlatformWork(f, platform, facts, booted, log)
	state := &nodeState{f.stateDir, new(mountedMemo)}
	config := runtime.Config{
		Platform: platform, State: state, AgentVersion: version.Get().Version,
		Certificate: runtime.NewCertificate(auditedCertificate{credentials, work.record}, log), Notifier: notifier, Watchdog: watchdog, Log: log,
		Heard: work.heard, ConfigDigest: work.configDigest, Doing: work.doing, Drain: serviceDrain,
		Load: func(ctx context.Context) error {
			err := platform.load()
			if err == nil && booted { // else there is no root of ours to be read
				_, err = state.State(ctx)
			}
			return err
		},
	}
	all := &assembled{config: config, platform: platform, work: work}
	if booted {
		all.onNode(ctx, f.stateDir, facts)
	}
	all.config.Beside = append(append(all.config.Beside, work.loops()...), runtime.Trim{})
	return all, nil
}

// onNode adds what is to be done on a machine that this agent booted.
func (s *assembled) onNode(ctx context.Context, stateDir string, facts boot.Facts) {
	log := s.config.Log
	s.boots = &runtime.BootReports{Source: &bootReports{stateDir: stateDir, facts: facts}, Platform: s.platform, Log: log}
	watch := &serviceWatch{look: wrongServices, put: s.work.put, log: log}
	loops, remarks := upkeep{root: "/", stateDir: stateDir, facts: facts, log: log}.loops(ctx)
	sources := []func() []string{watch.Remarks, remarks, lastRemarks}
	loops = append(loops, *s.boots, newUnfinished(stateDir, s.platform, log).loop(), runtime.Chore{
		Name: "look at the services of modules", Soon: 10 * time.Second, Every: 30 * time.Second, Log: log, Do: watch.once,
	})
	if facts.Level == mount.Enforced {
		// At other levels the kernel checks nothing, and so tells nothing.
		keeper := newKeeper(stateDir, facts, log)
		loops, sources = append(loops, keeper), append([]func() []string{keeper.Remarks}, sources...)
	}
	s.config.Beside, s.config.Remarks = append(s.config.Beside, loops...), remarksOf(sources...)
	s.config.Gate = health.New(health.Config{
		Settings: facts.Health, Generation: facts.Generation, StateDir: stateDir, RunDir: boot.RunDir, Log: log,
		Restart: func(ctx context.Context) error {
			s.work.record("restart the machine", fmt.Sprintf("begun: generation %d isn't good in this boot", facts.Generation), true)
			return restart.Machine{}.Now(ctx, restart.Full)
		},
	})
}

// newCertificateKeeper returns what keeps the node's certificate while the service runs.
func newCertificateKeeper(stateDir string, log *slog.Logger) *enroll.Keeper {
	return enroll.NewKeeper(enroll.Options{
		Dir: boot.PKIDir(stateDir), Clock: openClock(stateDir), KeyKind: policyKeyKind(boot.TrustPath),
		AgentVersion: version.Get().Version, DMIUUID: runtime.ReadMachine("/sys").DMIUUID, Log: log,
	})
}

// newLog returns the logger that --log-format names.
func newLog(format string, app *cli.App) (*slog.Logger, error) {
	text := slog.NewTextHandler(app.Err, nil)
	switch format {
	case "auto":
		if f, ok := app.Err.(*os.File); ok && journal.Connected(f, app.Getenv("JOURNAL_STREAM")) {
			if h, err := journal.New(journal.Socket, "powernode-agent", text); err == nil {
				return slog.New(h), nil
			}
		}
		return slog.New(text), nil
	case "text":
		return slog.New(text), nil
	case "json":
		return slog.New(slog.NewJSONHandler(app.Err, nil)), nil
	}
	return nil, fault.New(fault.Refuse, fault.Input, "use auto, text or json", "unknown log format %q", format)
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
