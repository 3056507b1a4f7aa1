package agentcli

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/retain"
	"github.com/powernode/powernode-agent/internal/rootfs"
	"github.com/powernode/powernode-agent/internal/store"
)

// generationsDoc is the documented shape of `generations --output json`.
type generationsDoc struct {
	// Current, Previous, Staged and Running are the generations of these names, RollbackTo is where a rollback without a
	// number would lead; 0 for none.
	Current    uint64 `json:"current"`
	Previous   uint64 `json:"previous"`
	Staged     uint64 `json:"staged"`
	Running    uint64 `json:"running"`
	RollbackTo uint64 `json:"rollback_to"`
	// Generations are all that are here, oldest first.
	Generations []generationDoc `json:"generations"`
	Remarks     []string        `json:"remarks,omitempty"`
}

// generationDoc is one of them. Of one whose record is damaged there is the number, and that it is.
type generationDoc struct {
	Generation uint64                   `json:"generation"`
	Created    time.Time                `json:"created,omitzero"`
	Cause      string                   `json:"cause,omitempty"`
	RootDigest fsverity.Digest          `json:"root_digest"`
	Level      string                   `json:"integrity_level,omitempty"`
	Modules    []store.GenerationModule `json:"modules"`
	Health     retain.Health            `json:"health"`
	// LiveSince is when it went live without a boot, LeftAt when somebody went back from it, and to which.
	LiveSince time.Time `json:"live_since,omitzero"`
	LeftAt    time.Time `json:"left_at,omitzero"`
	LeftFor   uint64    `json:"left_for,omitempty"`
	// Pin is there where a person wants it kept.
	Pin *pinDoc `json:"pin,omitempty"`
	// Kept says whether gc keeps it, and KeptBecause why, or why it doesn't.
	Kept        bool     `json:"kept"`
	KeptBecause []string `json:"kept_because"`
}

// pinDoc is a pin.
type pinDoc struct {
	Since time.Time `json:"since,omitzero"`
	Note  string    `json:"note,omitempty"`
}

func generationsCommand(app *cli.App) *cobra.Command {
	var stateDir string
	cmd := &cobra.Command{
		Use:   "generations",
		Short: "List what this node ran, runs and is going to run",
		Long: `List the generations that this node has: the sets of modules that it ran, runs or is going to run,
what became of each, and which of them powernode-agent gc keeps.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			doc, err := readGenerations("/", stateDir)
			if err != nil {
				return err
			}
			return app.Print(doc, doc.table)
		},
	}
	cmd.PersistentFlags().StringVar(&stateDir, "state", boot.StateDir(boot.PersistInRoot), "the directory of record")
	cmd.AddCommand(pinCommand(app, &stateDir), unpinCommand(app, &stateDir))
	return cmd
}

func pinCommand(app *cli.App, stateDir *string) *cobra.Command {
	var note string
	cmd := &cobra.Command{
		Use:   "pin GENERATION",
		Short: "Keep a generation, whatever comes after it",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return changePin(app, *stateDir, args[0], func(st *store.Store, n uint64) (string, error) {
				return "is pinned", st.PutPin(store.Pin{Generation: n, Since: time.Now().UTC(), Note: note})
			})
		},
	}
	cmd.Flags().StringVar(&note, "note", "", "why, for those who read it later")
	return cmd
}

func unpinCommand(app *cli.App, stateDir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "unpin GENERATION",
		Short: "Let a generation go once nothing else keeps it",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return changePin(app, *stateDir, args[0], func(st *store.Store, n uint64) (string, error) {
				return "isn't pinned any more", st.RemovePin(n)
			})
		},
	}
}

// changePin does something to the pin of a generation, and prints the generation as it is then.
func changePin(app *cli.App, stateDir, arg string, do func(*store.Store, uint64) (string, error)) error {
	n, err := strconv.ParseUint(arg, 10, 64)
	if err != nil || n == 0 {
		return fault.New(fault.Refuse, fault.Input, "powernode-agent generations lists them", "%.40q is no generation", arg)
	}
	// One that isn't there is not to be made.
	reader, err := openStore(stateDir)
	if err != nil {
		return err
	}
	reader.Close()
	st, err := store.Open(stateDir, store.Options{})
	if err != nil {
		return err
	}
	said, err := do(st, n)
	if err := errors.Join(err, st.Close()); err != nil {
		return err
	}
	doc, err := readGenerations("/", stateDir)
	if err != nil {
		return err
	}
	g := doc.of(n)
	return app.Print(g, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "generation %d %s\n", n, said)
		return err
	})
}

// readGenerations gathers the list. What is damaged is in the remarks.
func readGenerations(root, stateDir string) (*generationsDoc, error) {
	st, err := openStore(stateDir)
	if err != nil {
		return nil, err
	}
	defer st.Close()
	in, remarks, err := retain.Read(st)
	if err != nil {
		remarks = append(remarks, err.Error())
	}
	if facts, err := boot.ReadFacts(root); err == nil && filepath.Clean(facts.StateDir) == filepath.Clean(stateDir) {
		in.Running = facts.Generation
	}
	// Without these the list is as good, but for which of them are mounted beside, or were beneath a writable layer.
	in.Mounted, _ = retain.MountedRoots(filepath.Join(root, "proc"))
	in.Beneath, _ = rootfs.BeneathUppers(stateDir)
	doc := &generationsDoc{
		Current: in.Current, Previous: in.Previous, Staged: in.Staged, Running: in.Running, RollbackTo: retain.Back(in),
		Generations: []generationDoc{}, Remarks: remarks,
	}
	records := make(map[uint64]store.Generation)
	for _, g := range in.Generations {
		records[g.Number] = g
	}
	for _, v := range retain.Decide(in) {
		doc.Generations = append(doc.Generations, describe(in, records[v.Generation], v))
	}
	return doc, nil
}

func describe(in retain.Input, g store.Generation, v retain.Verdict) generationDoc {
	left := in.Left(v.Generation)
	d := generationDoc{
		Generation: v.Generation, Created: g.Created, Cause: g.Cause, RootDigest: g.RootDigest, Level: g.Level, Modules: g.Modules,
		Health: retain.HealthOf(in, v.Generation), LiveSince: in.Live(v.Generation).At, LeftAt: left.At, LeftFor: left.For, Kept: v.Keep, KeptBecause: v.Reasons,
	}
	if d.Modules == nil {
		d.Modules = []store.GenerationModule{}
	}
	if p := in.Pin(v.Generation); p.Generation != 0 {
		d.Pin = &pinDoc{Since: p.Since, Note: p.Note}
	}
	return d
}

// of returns a generation of the list.
func (d *generationsDoc) of(n uint64) generationDoc {
	for _, g := range d.Generations {
		if g.Generation == n {
			return g
		}
	}
	return generationDoc{Generation: n}
}

func (d *generationsDoc) table(w io.Writer) error {
	rows := make([][]string, len(d.Generations))
	for i, g := range d.Generations {
		root := ""
		if !g.RootDigest.IsZero() {
			root = cli.ShortDigest(g.RootDigest.String())
		}
		created := ""
		if !g.Created.IsZero() {
			created = g.Created.Format(time.DateTime)
		}
		rows[i] = []string{fmt.Sprint(g.Generation), created, fmt.Sprint(len(g.Modules)), root, g.Cause, g.Health.String(), strings.Join(d.notes(g), ", ")}
	}
	if err := cli.Rows(w, []string{"GENERATION", "CREATED", "MODULES", "ROOT", "CAUSE", "HEALTH", "NOTES"}, rows); err != nil {
		return err
	}
	var pairs [][2]string
	if d.RollbackTo != 0 {
		pairs = append(pairs, [2]string{"a rollback leads to", fmt.Sprint("generation ", d.RollbackTo)})
	}
	for _, r := range d.Remarks {
		pairs = append(pairs, [2]string{"remark", r})
	}
	if len(pairs) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return cli.Pairs(w, pairs)
}

// notes says what a person looks for in the list.
func (d *generationsDoc) notes(g generationDoc) []string {
	var notes []string
	for _, role := range []struct {
		name string
		n    uint64
	}{{"runs", d.Running}, {"current", d.Current}, {"previous", d.Previous}, {"staged", d.Staged}} {
		if role.n == g.Generation {
			notes = append(notes, role.name)
		}
	}
	if g.LeftFor != 0 {
		notes = append(notes, fmt.Sprintf("left for %d", g.LeftFor))
	}
	if g.Pin != nil {
		note := "pinned"
		if g.Pin.Note != "" {
			note += " (" + g.Pin.Note + ")"
		}
		notes = append(notes, note)
	}
	if !g.Kept {
		notes = append(notes, "gc would remove it")
	}
	return notes
}
