package agentcli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health/restart"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/store"
)

// updateFlags are the flags of update.
type updateFlags struct {
	stateDir, trust, reboot string
	dryRun, retry           bool
}

// updateDoc is the documented shape of `update --output json`.
type updateDoc struct {
	reconcile.Update
	// Restart is how the machine restarts into what is staged: "soft", "full", or "none" where it doesn't.
	Restart string `json:"restart"`
}

func updateCommand(app *cli.App) *cobra.Command {
	var f updateFlags
	cmd := &cobra.Command{
		Use:   "update",
		Short: "Fetch what the platform assigns now, and stage it for the next boot",
		Long: `Ask the platform what this node should run, fetch and prove it, compose it, and stage it as a
generation for the next boot, where it is tried and goes back by itself if it isn't good. What runs
isn't touched. A module that is refused stays as it runs, and keeps no other back; the exit code is 8
then. Modules that failed their trial together are refused, unless --retry says to try once more.

Where nothing is to be changed, what runs is checked instead, and what is damaged fetched again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			progress := app.NewProgress()
			doc, err := f.update(cmd.Context(), progress)
			progress.Close()
			if err != nil {
				return err
			}
			if err := app.Print(doc, doc.table); err != nil {
				return err
			}
			if doc.Restart != noRestart {
				if err := f.restart(cmd.Context(), doc); err != nil {
					return err
				}
			}
			if len(doc.Failed) > 0 {
				return cli.ExitStatus(cli.ExitPartial)
			}
			return nil
		},
	}
	stateFlag(cmd, &f.stateDir)
	flags := cmd.Flags()
	flags.StringVar(&f.trust, "trust-policy", boot.TrustPath, "whose signatures count")
	flags.BoolVar(&f.dryRun, "dry-run", false, "say what would change, and change nothing")
	flags.BoolVar(&f.retry, "retry", false, "try modules again that failed their trial")
	flags.StringVar(&f.reboot, "reboot", noRestart, "restart into what is staged: auto (the quickest way), soft, full or none")
	return cmd
}

// noRestart leaves it to the next boot, quickRestart takes the quickest way there is.
const (
	noRestart    = "none"
	quickRestart = "auto"
)

// update does everything but the restart.
func (f *updateFlags) update(ctx context.Context, progress *cli.Progress) (*updateDoc, error) {
	switch f.reboot {
	case noRestart, quickRestart, string(restart.Soft), string(restart.Full):
	default:
		return nil, fault.New(fault.Refuse, fault.Input, "use auto, soft, full or none", "--reboot %q", f.reboot)
	}
	if f.reboot != noRestart && !f.dryRun {
		// Nobody means to restart a machine that isn't a node.
		if _, err := boot.ReadFacts("/"); err != nil {
			return nil, fault.New(fault.Refuse, fault.Input, "leave --reboot out", "restart this machine: it wasn't booted by powernode-agent: %w", err)
		}
	}
	trust, err := boot.LoadTrust(f.trust)
	if err != nil {
		return nil, err
	}
	st, unlock, err := f.open()
	if err != nil {
		return nil, err
	}
	defer unlock()
	level, err := levelOf(st, trust)
	if err != nil {
		return nil, err
	}
	// What the kernel's log tells of is found only by reading it.
	told, _ := reconcile.Corruptions()
	r, err := newReconciler(st, trust, level, reconcile.Config{
		Deep: len(told) > 0,
		Progress: func(name string, total int64) (func(int64), func(error)) {
			d := progress.Start(name, total)
			return d.Add, d.Done
		},
	})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	u, err := r.Update(ctx, reconcile.UpdateOptions{DryRun: f.dryRun, Retry: f.retry})
	if err != nil {
		return nil, err
	}
	doc := &updateDoc{Update: *u, Restart: noRestart}
	if len(u.Mended) > 0 {
		if err := reconcile.DropCaches(); err != nil {
			doc.Remarks = append(doc.Remarks, "files that are in use go on with what was damaged until the machine restarts")
		}
	}
	if f.reboot != noRestart && (u.Outcome == reconcile.Staged || u.Outcome == reconcile.AlreadyStaged) {
		doc.Restart = f.kind(ctx, doc)
	}
	return doc, nil
}

// open opens the store, alone but for a dry run, which only reads.
func (f *updateFlags) open() (*store.Store, func(), error) {
	if f.dryRun {
		st, err := openStore(f.stateDir)
		return st, func() { st.Close() }, err
	}
	lock, err := reconcile.Lock(f.stateDir)
	if errors.Is(err, fs.ErrNotExist) {
		err = fault.New(fault.Refuse, fault.Input, "run it on a node that has booted, or name the directory of record with --state", "%w", err)
	}
	if err != nil {
		return nil, nil, err
	}
	st, err := store.Open(f.stateDir, store.Options{})
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

// levelOf returns the integrity level that the next boot will have on this kernel and disk.
func levelOf(st *store.Store, trust boot.Trust) (mount.Level, error) {
	abilities, err := mount.Probe(st.ObjectsPath())
	if err != nil {
		return "", err
	}
	return mount.Decide(abilities, trust.Required)
}

// kind returns how the machine is going to restart.
func (f *updateFlags) kind(ctx context.Context, doc *updateDoc) string {
	if f.reboot != quickRestart {
		return f.reboot
	}
	kind, why := restart.Machine{}.Kind(ctx)
	if why != "" {
		doc.Remarks = append(doc.Remarks, "the whole machine restarts: "+why)
	}
	return string(kind)
}

// restart restarts the machine into what is staged. A soft-reboot that can't be prepared becomes a full
// one where the person left the choice to us.
func (f *updateFlags) restart(ctx context.Context, doc *updateDoc) error {
	if doc.Restart == string(restart.Soft) {
		err := f.softReboot(ctx, doc.Generation)
		if err == nil || f.reboot != quickRestart || fault.KindOf(err) == fault.Refuse {
			return err
		}
	}
	return restart.Machine{}.Now(ctx, restart.Full)
}

func (d *updateDoc) table(w io.Writer) error {
	pairs := [][2]string{{"update", d.words()}}
	if !d.RootDigest.IsZero() && d.RootDigest != d.FromRootDigest {
		from := "none"
		if !d.FromRootDigest.IsZero() {
			from = d.FromRootDigest.String()
		}
		pairs = append(pairs, [2]string{"root digest", d.RootDigest.String()}, [2]string{"instead of", from})
	}
	if d.RootDigest.IsZero() && !d.Expected.IsZero() {
		pairs = append(pairs, [2]string{"root digest", d.Expected.String() + ", as the platform computed"})
	}
	if p := d.Pulled; p.Modules > 0 {
		pairs = append(pairs, [2]string{"pulled", fmt.Sprintf("%s in %s, %s", cli.Bytes(uint64(p.Bytes)), cli.Count(p.Layers, "layer"), cli.Count(p.NewObjects, "new object"))})
	}
	for _, f := range d.Failed {
		text := fmt.Sprintf("%s %s: %s", f.Name, f.Version, f.Reason)
		if f.Kept != "" {
			text += "; version " + f.Kept + " stays"
		}
		pairs = append(pairs, [2]string{"refused", text})
	}
	for _, m := range d.Mended {
		pairs = append(pairs, [2]string{"mended", m})
	}
	for _, r := range d.Remarks {
		pairs = append(pairs, [2]string{"remark", r})
	}
	if err := cli.Pairs(w, pairs); err != nil || len(d.Changes) == 0 {
		return err
	}
	fmt.Fprintln(w)
	rows := make([][]string, len(d.Changes))
	for i, c := range d.Changes {
		size := ""
		if c.Size > 0 {
			size = cli.Bytes(uint64(c.Size))
		}
		rows[i] = []string{c.Kind, c.Name, c.From, c.To, size}
	}
	return cli.Rows(w, []string{"CHANGE", "MODULE", "FROM", "TO", "TO PULL"}, rows)
}

// words says what became of the update.
func (d *updateDoc) words() string {
	when := "at the next boot"
	switch d.Restart {
	case string(restart.Soft):
		when = "now, by a soft-reboot"
	case string(restart.Full):
		when = "now, by a restart"
	}
	switch d.Outcome {
	case reconcile.Staged:
		return fmt.Sprintf("generation %d is staged; it is tried %s", d.Generation, when)
	case reconcile.AlreadyStaged:
		return fmt.Sprintf("generation %d was staged before; it is tried %s", d.Generation, when)
	case reconcile.Withdrawn:
		return fmt.Sprintf("what was staged is withdrawn; generation %d stays", d.Generation)
	case reconcile.WouldStage:
		return "these changes would be staged for the next boot"
	case reconcile.WouldWithdraw:
		return fmt.Sprintf("what is staged would be withdrawn; generation %d would stay", d.Generation)
	default:
		return fmt.Sprintf("nothing to do; generation %d is what the platform assigns", d.Generation)
	}
}
