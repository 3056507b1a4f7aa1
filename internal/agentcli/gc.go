package agentcli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/retain"
	"github.com/powernode/powernode-agent/internal/rootfs"
	"github.com/powernode/powernode-agent/internal/store"
)

// gcDoc is the documented shape of `gc --output json`.
type gcDoc struct{ retain.Report }

func gcCommand(app *cli.App) *cobra.Command {
	var stateDir string
	var dryRun bool
	newest := retain.DefaultNewest
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Remove generations, modules and files that nothing needs any more",
		Long: `Remove what nothing needs any more: old generations, modules that no generation has, their files,
downloads that were cut off a week ago or longer, and the writable layers of roots that are gone. The
current generation stays, and the one before it, the last good one, the staged one, those that run
or are pinned, and the newest ones.

Nothing is removed while a module is being fetched, while a live change isn't finished or confirmed, or
where a record is damaged that says what is needed. The service does the same by itself once a generation was found good.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if newest < 1 {
				return fault.New(fault.Refuse, fault.Input, "keep at least one", "--keep %d", newest)
			}
			doc, err := gc(cmd.Context(), "/", stateDir, retain.Options{Newest: newest, Now: time.Now()}, dryRun)
			if err != nil && (doc == nil || !doc.removed()) {
				return err
			}
			// What is gone is gone, also where it didn't come to its end.
			return errors.Join(app.Print(doc, doc.table), err)
		},
	}
	stateFlag(cmd, &stateDir)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would go, and remove nothing")
	cmd.Flags().IntVar(&newest, "keep", newest, "how many of the newest generations to keep, whatever became of them")
	return cmd
}

// removed reports whether a collection came as far as to remove something.
func (d *gcDoc) removed() bool {
	return d.FreedBytes > 0 || len(d.Generations) > 0 || len(d.Modules) > 0 || d.Objects.Count > 0
}

// gc collects, or says what it would.
func gc(ctx context.Context, root, stateDir string, o retain.Options, dryRun bool) (*gcDoc, error) {
	o.Uppers = uppersOf(stateDir)
	if dryRun {
		st, err := openStore(stateDir)
		if err != nil {
			return nil, err
		}
		defer st.Close()
		if err := whatRuns(root, stateDir, &o); err != nil {
			return nil, err
		}
		r, err := retain.Plan(ctx, st, o)
		if err != nil {
			return nil, err
		}
		return &gcDoc{*r}, nil
	}
	// What is in use is found out by what is mounted, too.
	if err := atHome(root, stateDir); err != nil {
		return nil, err
	}
	if reader, err := openStore(stateDir); err != nil { // what isn't there isn't made
		return nil, err
	} else if err := reader.Close(); err != nil {
		return nil, err
	}
	st, unlock, err := patiently(ctx, func() (*store.Store, func(), error) { return openLocked(stateDir) })
	if err != nil {
		return nil, err
	}
	defer unlock()
	// Under the lock: until then a change may have put another root in the place of the one that was seen.
	if err := whatRuns(root, stateDir, &o); err != nil {
		return nil, err
	}
	if err := settled(root, o.Running); err != nil {
		return nil, err
	}
	r, err := retain.Collect(ctx, st, o)
	return &gcDoc{*r}, err
}

// settled refuses to remove anything of the store that runs while it isn't sure which generation that is going to be: what waits to be
// confirmed may be taken back, and its versions, which a collection writes down, would keep lower ones away for good.
func settled(root string, running uint64) error {
	runDir := filepath.Join(root, boot.RunDir)
	if running == 0 {
		return nil
	}
	if change.Unfinished(runDir) {
		return fault.New(fault.Retry, fault.General, "the service, or any command that changes something, finishes it", "a live change was interrupted")
	}
	p, waits, err := change.Waiting(runDir)
	if err == nil && waits && p.Generation == running {
		err = fault.New(fault.Retry, fault.General, "wait until it is confirmed or taken back", "generation %d isn't confirmed yet", running)
	}
	return err
}

// whatRuns says what of a store runs in the system whose root directory root is.
func whatRuns(root, stateDir string, o *retain.Options) error {
	facts, err := boot.ReadFacts(root)
	switch {
	case err == nil && filepath.Clean(facts.StateDir) == filepath.Clean(stateDir):
		o.Running = facts.Generation
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.KindOf(err), fault.AreaOf(err), fault.HintOf(err), "find out what runs: %w", err)
	}
	// Anything else at "/" is none of this store's.
	if union, err := mount.UnionAt(root); err == nil {
		o.Root = union.Digest
	}
	if o.Beneath, err = rootfs.BeneathUppers(stateDir); err != nil {
		return err
	}
	o.Mounted, err = retain.MountedRoots(filepath.Join(root, "proc"))
	return err
}

// uppersOf returns what removes the writable layers of roots that are gone.
func uppersOf(stateDir string) func(context.Context, map[fsverity.Digest]struct{}, bool) (retain.Amount, error) {
	return func(_ context.Context, keep map[fsverity.Digest]struct{}, dryRun bool) (retain.Amount, error) {
		var gone retain.Amount
		old, err := rootfs.OldUppers(stateDir, keep)
		for _, u := range old {
			gone.Count++
			gone.Bytes += u.Bytes
		}
		if err != nil || dryRun || gone.Count == 0 {
			return gone, err
		}
		n, err := rootfs.PruneUppers(stateDir, keep, nil)
		if n < gone.Count {
			gone = retain.Amount{Count: n}
		}
		return gone, err
	}
}

func (d *gcDoc) table(w io.Writer) error {
	would := ""
	if d.DryRun {
		would = "would be "
	}
	amount := func(a retain.Amount, thing string) string {
		return fmt.Sprintf("%s, %s", cli.Count(a.Count, thing), cli.Bytes(uint64(a.Bytes)))
	}
	pairs := [][2]string{
		{would + "freed", cli.Bytes(uint64(d.FreedBytes))},
		{"generations", fmt.Sprintf("%d of %d", len(d.Generations), len(d.Generations)+len(d.Kept))},
		{"modules", fmt.Sprint(len(d.Modules))},
		{"files", amount(d.Objects, "object")},
		{"downloads", amount(d.Partials, "partial download")},
		{"writable layers", amount(d.Uppers, "layer")},
	}
	for _, m := range d.Modules {
		name := strings.TrimSpace(m.Name + " " + m.Version)
		if name == "" {
			name = "a damaged one, " + m.ManifestDigest
		}
		pairs = append(pairs, [2]string{"module", name})
	}
	for _, r := range d.Remarks {
		pairs = append(pairs, [2]string{"remark", r})
	}
	if err := cli.Pairs(w, pairs); err != nil {
		return err
	}
	var rows [][]string
	verdicts := func(list []retain.Verdict, what string) {
		for _, v := range list {
			rows = append(rows, []string{fmt.Sprint(v.Generation), what, strings.Join(v.Reasons, ", ")})
		}
	}
	verdicts(d.Generations, would+"removed")
	verdicts(d.Kept, "kept")
	if len(rows) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return cli.Rows(w, []string{"GENERATION", "IS", "BECAUSE"}, rows)
}

// spareModules is how long the service leaves a module that no generation has: an update that an outage cut off goes on.
const spareModules = 24 * time.Hour

// collector is the service's part in it: it collects once whenever another generation has become current, and works.
type collector struct {
	upkeep
	// last is the generation after which it collected last.
	last uint64
}

// collect looks, and is never done.
func (c *collector) collect(ctx context.Context) (bool, error) {
	due, err := c.due()
	if err != nil || due == 0 {
		return false, err
	}
	doc, err := gc(ctx, "/", c.stateDir, retain.Options{Now: time.Now(), SpareModules: spareModules}, false)
	switch {
	case fault.KindOf(err) == fault.Retry:
		return false, nil //nolint:nilerr // somebody is at work, and it has time
	case err != nil:
		return false, err
	}
	c.last = due
	if doc.FreedBytes > 0 {
		c.log.Info("what nothing needs any more is removed", "bytes", doc.FreedBytes, "generations", len(doc.Generations), "modules", len(doc.Modules), "objects", doc.Objects.Count)
	}
	return false, nil
}

// due returns the current generation, if that is another than last time and is known to work; else 0.
func (c *collector) due() (uint64, error) {
	st, err := store.Open(c.stateDir, store.Options{ReadOnly: true})
	if err != nil {
		return 0, err
	}
	defer st.Close()
	current, err := st.Pointer(store.Current)
	if err != nil || current == c.last {
		return 0, err
	}
	in, _, err := retain.Read(st)
	if err != nil {
		return 0, err
	}
	switch retain.HealthOf(in, current).State {
	case retain.Good, retain.Live:
		return current, nil
	default:
		return 0, nil
	}
}
