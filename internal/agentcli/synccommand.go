package agentcli

import (
	"context"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodeclient"
	"github.com/powernode/powernode-agent/internal/nodeconfig/apply"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/signedtime"
)

func syncCommand(app *cli.App) *cobra.Command {
	var f changeFlags
	f.request.Kind = change.Update
	cmd := &cobra.Command{
		Use:   "sync",
		Short: "Bring this node to all that its platform says of it: modules, authorized keys, host name, hosts",
		Long: `Bring this node, once, to all that its platform says of it: the modules, as powernode-agent update does; the
authorized keys of users, in a block of their own beside those that are there; the host name; entries
of /etc/hosts, in a block as well. What is right already isn't touched.

A part that fails keeps no other back: the exit code is 8 then. An empty or malformed list of keys is
refused, and takes nothing from anybody. With --dry-run nothing is changed, and what would be is shown.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := atHome("/", f.stateDir); err != nil {
				return err
			}
			s := f.syncer(app)
			machine := s.machine
			s.machine = func() (configured, func(), error) { return patiently(cmd.Context(), machine) }
			doc, err := s.run(cmd.Context())
			if err != nil {
				return err
			}
			keepSynced(boot.RunDir, doc)
			if err := app.Print(doc, doc.table); err != nil {
				return err
			}
			return doc.exit()
		},
	}
	f.changing(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&f.request.Retry, "retry", false, "try modules again that failed their trial, or that somebody rolled back from")
	flags.BoolVar(&f.request.RemoveMost, "remove-most", false, "let more than half of the modules go at once")
	flags.BoolVar(&f.request.AllowDowngrade, "allow-downgrade", false, "let modules go below the highest version that was current here")
	return cmd
}

// syncer returns what brings this machine in step.
func (f *changeFlags) syncer(app *cli.App) syncer {
	return syncer{
		dryRun: f.request.DryRun,
		modules: func(ctx context.Context) (*changeDoc, syncPart, error) {
			doc, err := f.run(ctx, app)
			if err != nil {
				return nil, syncPart{}, err
			}
			return doc, doc.part(), nil
		},
		config: func(ctx context.Context) (*nodeapi.NodeConfig, error) {
			client, err := configClient(f.stateDir, f.request.DryRun)
			if err != nil {
				return nil, err
			}
			defer client.Close()
			return client.Config(ctx)
		},
		machine: func() (configured, func(), error) {
			options := apply.Options{DryRun: f.request.DryRun, Kernel: apply.Kernel{}}
			if f.request.DryRun {
				return openMachine(app.Machine, options, func() {})
			}
			lock, err := reconcile.Lock(f.stateDir)
			if err != nil {
				return nil, nil, err
			}
			// The kernel ends the lock with its file, whatever is said of closing it.
			return openMachine(app.Machine, options, func() { _ = lock.Unlock() })
		},
	}
}

// configClient returns what asks the platform. In a dry run nothing is kept of what it says: the time, and what it makes of the
// node's certificate.
func configClient(stateDir string, dryRun bool) (*nodeclient.Client, error) {
	keeper := newCertificateKeeper(stateDir, slog.New(slog.DiscardHandler))
	if dryRun {
		clock := signedtime.Open("", signedtime.Options{Floor: []time.Time{openClock(stateDir).Floor()}})
		keeper = enroll.NewKeeper(enroll.Options{Dir: boot.PKIDir(stateDir), Clock: clock})
	}
	c := nodeclient.Config{Credentials: keeper, HTTP: nodehttp.Options{Now: keeper.Now}, Prepare: keeper.Prepare}
	if !dryRun {
		c.Heard = keeper.Heard
	}
	return nodeclient.New(c)
}

// openMachine opens the machine whose root directory root is; unlock is called at its end.
func openMachine(root string, o apply.Options, unlock func()) (configured, func(), error) {
	if root == "" {
		unlock()
		return nil, nil, fault.New(fault.Refuse, fault.Input, "", "no machine to configure")
	}
	m, err := apply.Open(root, o)
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return m, func() {
		// Nothing was written by this descriptor.
		_ = m.Close()
		unlock()
	}, nil
}

// part says what became of the modules.
func (d *changeDoc) part() syncPart {
	part := syncPart{Result: syncChanged, What: d.words(), Remarks: d.Remarks}
	switch d.Outcome {
	case change.InStep, change.AlreadyStaged:
		part.Result = syncInStep
	case change.WouldGoLive, change.WouldStage, change.WouldWithdraw:
		part.Result = syncWouldChange
	case change.WentLive, change.Staged, change.Withdrawn:
	case change.TakenBack:
		part.Result = syncFailed
	}
	for _, c := range d.Changes {
		line := c.Name + " " + c.To
		switch {
		case c.To == "":
			part.Removed = append(part.Removed, c.Name+" "+c.From)
			continue
		case c.From != "" && c.From != c.To:
			line += " instead of " + c.From
		}
		part.Added = append(part.Added, line)
	}
	for _, f := range d.Failed {
		what := " is refused: "
		if f.Unreached {
			part.Unreached, what = true, " can't be had: "
		}
		part.Remarks = append(part.Remarks, f.Name+" "+f.Version+what+f.Reason)
	}
	for _, text := range d.Undone {
		part.Remarks = append(part.Remarks, "not done: "+text)
	}
	if len(d.Failed) > 0 || len(d.Undone) > 0 {
		part.Result = syncPartly
	}
	return part
}
