package agentcli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health/restart"
	"github.com/powernode/powernode-agent/internal/live"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/nodeclient"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/retain"
	"github.com/powernode/powernode-agent/internal/rootfs"
	"github.com/powernode/powernode-agent/internal/store"
)

// changeFlags are the flags that all commands have which change what the node runs.
type changeFlags struct {
	stateDir, trust string
	request         change.Request
}

// changing adds them to a command.
func (f *changeFlags) changing(cmd *cobra.Command) {
	stateFlag(cmd, &f.stateDir)
	flags := cmd.Flags()
	flags.StringVar(&f.trust, "trust-policy", boot.TrustPath, "whose signatures count")
	flags.BoolVar(&f.request.DryRun, "dry-run", false, "say what would change, and change nothing")
	flags.BoolVar(&f.request.AllFiles, "files", false, "name every file that differs, and not the first ones only")
	flags.BoolVar(&f.request.Stage, "stage", false, "leave what runs alone, and have the next boot try it")
	flags.BoolVar(&f.request.BreakLocks, "break-locks", false, "go live although processes hold locks of files in directories that change, as the plan names them: who comes later isn't kept out")
	flags.StringVar((*string)(&f.request.LocalChanges), "local-changes", string(change.KeepLocal),
		"what becomes of local changes of what is changed, too, as the plan names them: keep, or replace, which can't be taken back once it is done")
	flags.DurationVar(&f.request.Confirm, "confirm", 0, "take a live change back unless the platform is reached again within this time, as 60s")
}

// checkConfirm refuses times that nobody means.
func (f *changeFlags) check() error {
	const most = 24 * time.Hour
	if c := f.request.Confirm; c < 0 || c > most || c > 0 && c < time.Second {
		return fault.New(fault.Refuse, fault.Input, "use a time between 1s and 24h", "--confirm %s", c)
	}
	switch l := f.request.LocalChanges; l {
	case "", change.KeepLocal, change.ReplaceLocal:
	default:
		return fault.New(fault.Refuse, fault.Input, "use keep or replace", "--local-changes %.20q", l)
	}
	if f.request.LocalChanges == change.ReplaceLocal && f.request.Confirm > 0 {
		return fault.New(fault.Refuse, fault.Input, "confirm the change first, and replace them with the next one",
			"--local-changes replace with --confirm: what is replaced doesn't come back when the change is taken back")
	}
	return nil
}

// run does the change, prints what became of it, and waits for its confirmation.
func (f *changeFlags) run(ctx context.Context, app *cli.App) (*changeDoc, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	if err := atHome("/", f.stateDir); err != nil {
		return nil, err
	}
	progress := app.NewProgress()
	doc, err := f.change(ctx, app, progress)
	progress.Close()
	return doc, err
}

// finish prints the document, and returns the exit code.
func (f *changeFlags) finish(app *cli.App, doc *changeDoc) error {
	if err := app.Print(doc, doc.table); err != nil {
		return err
	}
	if len(doc.Failed) > 0 || len(doc.Undone) > 0 || doc.Outcome == change.TakenBack {
		return cli.ExitStatus(cli.ExitPartial)
	}
	return nil
}

// change does everything but the printing.
func (f *changeFlags) change(ctx context.Context, app *cli.App, progress *cli.Progress) (*changeDoc, error) {
	if !f.request.DryRun {
		defer app.Outlive("powernode-agent", "the change goes on, and is undone only where it fails; powernode-agent status tells what became of it")()
	}
	doc, err := f.make(ctx, progress)
	if err == nil && doc.Outcome == change.WentLive && !doc.ConfirmBy.IsZero() {
		err = f.await(ctx, &doc.Result)
	}
	return doc, err
}

// make does what is asked for, under the lock.
func (f *changeFlags) make(ctx context.Context, progress *cli.Progress) (*changeDoc, error) {
	trust, err := boot.LoadTrust(f.trust)
	if err != nil {
		return nil, err
	}
	st, unlock, err := patiently(ctx, f.open)
	if err != nil {
		return nil, err
	}
	defer unlock()
	c, closing, err := newChanger(st, trust, f.request.DryRun, func(name string, total int64) (func(int64), func(error)) {
		d := progress.Start(name, total)
		return d.Add, d.Done
	})
	if err != nil {
		return nil, err
	}
	defer closing()
	earlier, err := c.Clear(ctx, f.request)
	r := earlier.Result
	if err == nil && r == nil {
		r, err = c.Do(ctx, f.request)
	}
	if err != nil {
		return nil, after(slices.Concat(earlier.Said, earlier.Undone), err)
	}
	r.Remarks = append(earlier.Said, r.Remarks...)
	doc := &changeDoc{Result: *r, Restart: noRestart}
	if !f.request.DryRun {
		if err := c.Forget(); err != nil {
			doc.Remarks = append(doc.Remarks, fault.OneLine(err.Error()))
		}
	}
	if len(r.Mended) > 0 {
		if err := reconcile.DropCaches(); err != nil {
			doc.Remarks = append(doc.Remarks, "files that are in use go on with what was damaged until the machine restarts")
		}
	}
	return doc, nil
}

// after adds what was done before to an error.
func after(said []string, err error) error {
	if len(said) == 0 {
		return err
	}
	return fmt.Errorf("%w (before that: %s)", err, fault.OneLine(strings.Join(said, "; ")))
}

// await waits for the confirmation of a change that went live, and takes it back where none comes in time. Nobody is kept
// waiting meanwhile: only the end of it takes the lock.
func (f *changeFlags) await(ctx context.Context, r *change.Result) error {
	trust, err := boot.LoadTrust(f.trust)
	if err != nil {
		return err
	}
	platform := afresh{func() (*nodeclient.Client, error) { return configClient(f.stateDir, false) }}
	for {
		reached, err := change.Await(ctx, boot.RunDir, r, platform, nil)
		if ctx.Err() != nil {
			return fault.New(fault.Retry, fault.General, "powernode-agent status tells", "generation %d runs and isn't confirmed: the service, or the next command, confirms it or goes back from it: %w", r.Generation, ctx.Err())
		}
		if err != nil {
			return err
		}
		st, unlock, err := openLocked(f.stateDir)
		if fault.KindOf(err) == fault.Retry {
			// Somebody is at work, who may be doing just that.
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		if err != nil {
			return err
		}
		defer unlock()
		c, closing, err := newChanger(st, trust, false, nil)
		if err != nil {
			return err
		}
		defer closing()
		return c.Settle(ctx, reached, r)
	}
}

// open opens the store, alone but for a dry run, which only reads.
func (f *changeFlags) open() (*store.Store, func(), error) {
	if f.request.DryRun {
		st, err := openStore(f.stateDir)
		return st, func() { st.Close() }, err
	}
	return openLocked(f.stateDir)
}

// openLocked opens a store for a change: under the lock that only one has at a time.
func openLocked(stateDir string) (*store.Store, func(), error) {
	lock, err := reconcile.Lock(stateDir)
	if errors.Is(err, fs.ErrNotExist) {
		err = fault.New(fault.Refuse, fault.Input, "run it on a node that has booted, or name the directory of record with --state", "%w", err)
	}
	if err != nil {
		return nil, nil, err
	}
	st, err := store.Open(stateDir, store.Options{})
	if err != nil {
		lock.Unlock()
		return nil, nil, err
	}
	return st, func() { closeAll(st, lock) }, nil
}

func closeAll(st *store.Store, lock *durable.Lock) {
	st.Close()
	lock.Unlock()
}

// newChanger returns what changes the node whose store is open, and runs perhaps as this very system.
func newChanger(st *store.Store, trust boot.Trust, dryRun bool, progress func(string, int64) (func(int64), func(error))) (*change.Changer, func(), error) {
	abilities, err := mount.Probe(st.ObjectsPath())
	if err != nil {
		return nil, nil, err
	}
	level, err := mount.Decide(abilities, trust.Required)
	if err != nil {
		return nil, nil, err
	}
	// What the kernel's log tells of is found only by reading it.
	told, _ := reconcile.Corruptions()
	r, err := newReconciler(st, trust, level, reconcile.Config{Deep: len(told) > 0, Progress: progress, ReadOnly: dryRun})
	if err != nil {
		return nil, nil, err
	}
	config := change.Config{Store: st, Reconciler: r}
	facts, err := boot.ReadFacts("/")
	if err == nil {
		err = liveHere(st, facts, trust, level, &config)
	} else {
		err = nil
		config.Running.NotLive = "this machine wasn't booted by powernode-agent"
	}
	if err != nil {
		r.Close()
		return nil, nil, err
	}
	return change.New(config), r.Close, nil
}

// liveHere says what runs here, and what of it can be changed.
func liveHere(st *store.Store, facts boot.Facts, trust boot.Trust, level mount.Level, config *change.Config) error {
	if !machineHere("/", st, facts, trust, config) {
		return nil
	}
	in, _, err := retain.Read(st)
	if err != nil {
		return err
	}
	switch health := retain.HealthOf(in, facts.Generation); {
	case facts.Persist.ReadOnly:
		config.Running.NotLive = "the disk can't be written"
	case facts.Health.Trial && health.State != retain.Good && health.State != retain.Live:
		config.Running.NotLive = fmt.Sprintf("generation %d is on trial, and isn't found good yet", facts.Generation)
	case level != facts.Level:
		config.Running.NotLive = fmt.Sprintf("what runs is at the integrity level %s, and the next boot would be at %s", facts.Level, level)
	}
	return nil
}

// machineHere says what runs in the system whose root directory root is, and how that is changed. It returns false where what runs isn't of this store.
func machineHere(root string, st *store.Store, facts boot.Facts, trust boot.Trust, config *change.Config) bool {
	if filepath.Clean(facts.StateDir) != filepath.Clean(st.Path()) {
		config.Running.NotLive = "this machine runs from another directory of record"
		return false
	}
	config.Running = change.Running{
		Generation: facts.Generation, BootID: facts.Journal.BootID,
		NotSoft: func(ctx context.Context) string {
			kind, why := restart.Machine{}.Kind(ctx)
			if kind != restart.Soft && why == "" {
				why = "the whole machine restarts"
			}
			return why
		},
		Live: func(g store.Generation) error { return boot.WentLive(root, g.Number, g.RootDigest) },
	}
	config.RunDir = filepath.Join(root, boot.RunDir)
	machine := &change.Machine{
		Place: live.Place{Root: root, RunDir: config.RunDir, Images: st, UpperDir: facts.Root.UpperDir},
		Care:  &change.Care{Store: st, Root: root, Run: filepath.Dir(config.RunDir), Agent: boot.AgentPath, Privileged: trust.PrivilegedServices},
	}
	if facts.Root.Etc == rootfs.Persistent {
		machine.EtcUpper = filepath.Join(st.Path(), "etc", "upper")
	}
	config.System = machine
	return true
}
