package agentcli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/store"
)

// introspectDoc is the documented shape of `introspect --output json`. Parts that couldn't be
// read are missing, and Problems say why.
type introspectDoc struct {
	Credentials *credentialsDoc      `json:"credentials,omitempty"`
	Sources     []identity.Report    `json:"sources,omitempty"`
	Identity    *identity.Identity   `json:"identity,omitempty"`
	Kernel      *mount.Abilities     `json:"kernel,omitempty"`
	Unions      []mount.MountedUnion `json:"unions"`
	Modules     []store.Module       `json:"modules"`
	Generations []store.Generation   `json:"generations"`
	Pointers    map[string]uint64    `json:"pointers"`
	Boot        *boot.Facts          `json:"boot,omitempty"`
	Problems    []string             `json:"problems,omitempty"`
}

func introspectCommand(app *cli.App) *cobra.Command {
	var stateDir, identityFile, wanted string
	var sources bool
	cmd := &cobra.Command{
		Use:   "introspect",
		Short: "Show what this node knows of itself: identity, certificate, modules, generations, mounts, kernel",
		Long: `Show what this node knows of itself. Secrets are redacted. It changes nothing; parts that can't be
read are named under "problems", and the rest is shown all the same.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			only, err := identitySources(wanted)
			if err != nil {
				return err
			}
			doc := newIntrospection(stateDir)
			if sources {
				where := usualPlaces(app.Machine, identityFile)
				if only != nil {
					where.Only = only
				}
				resolver := identity.Resolver{Sources: where.Sources(), All: true}
				found, reports, err := resolver.Resolve(cmd.Context())
				serve := doc.Credentials != nil && doc.Credentials.Situation.Usable()
				if where.Claim() {
					reports = append(reports, claimReport(boot.ClaimDir(stateDir), found, serve))
				}
				doc.Sources, doc.Identity = reports, &found
				if !serve { // a node that is enrolled needs no other identity
					doc.problem(err)
				}
			}
			doc.look(stateDir)
			return app.Print(doc, doc.table)
		},
	}
	stateFlag(cmd, &stateDir)
	cmd.Flags().BoolVar(&sources, "sources", false, "ask every source of identity, and show what each says or why it says nothing")
	cmd.Flags().StringVar(&identityFile, "identity-file", "", "an identity.cfg to read instead of the usual sources")
	identitySourceFlag(cmd, &wanted)
	return cmd
}

// newIntrospection returns what the node knows of its credentials.
func newIntrospection(stateDir string) *introspectDoc {
	// Lists are lists also where there is nothing to list.
	d := &introspectDoc{
		Unions: []mount.MountedUnion{}, Modules: []store.Module{}, Generations: []store.Generation{}, Pointers: map[string]uint64{},
	}
	var err error
	d.Credentials, err = readCredentials(stateDir)
	d.problem(err)
	return d
}

// look adds what the node knows of what it has and runs.
func (d *introspectDoc) look(stateDir string) {
	d.store(stateDir)
	d.mounts()
	facts, err := boot.ReadFacts("/")
	if err != nil {
		d.problem(err)
		return
	}
	d.Boot = &facts
}

func (d *introspectDoc) problem(err error) {
	if err != nil {
		d.Problems = append(d.Problems, err.Error())
	}
}

func (d *introspectDoc) store(stateDir string) {
	st, err := store.Open(stateDir, store.Options{ReadOnly: true})
	if err != nil {
		d.problem(err)
		return
	}
	defer st.Close()
	modules, err := st.ListModules()
	d.problem(err)
	d.Modules = append(d.Modules, modules...)
	generations, err := st.Generations()
	d.problem(err)
	d.Generations = append(d.Generations, generations...)
	for _, name := range []store.PointerName{store.Current, store.Previous, store.Staged} {
		n, err := st.Pointer(name)
		d.problem(err)
		if n != 0 {
			d.Pointers[string(name)] = n
		}
	}
	abilities, err := mount.Probe(st.ObjectsPath())
	d.problem(err)
	if err == nil {
		d.Kernel = &abilities
	}
}

func (d *introspectDoc) mounts() {
	table, err := mount.ReadTable()
	d.problem(err)
	d.Unions = append(d.Unions, table.Unions()...)
}

func (d introspectDoc) table(w io.Writer) error {
	var pairs [][2]string
	add := func(key, format string, args ...any) {
		pairs = append(pairs, [2]string{key, fmt.Sprintf(format, args...)})
	}
	pairs = append(pairs, d.Credentials.rows(true)...)
	for _, s := range d.Sources {
		pairs = append(pairs, sourceRow(s))
	}
	if d.Identity != nil {
		pairs = append(pairs, identityRows(d.Identity)...)
	}
	for _, u := range d.Unions {
		add("union at "+u.Entry.Point, "%s, %s", u.Digest, u.Level)
	}
	for _, m := range d.Modules {
		add("module", "%s %s, seal %s, from %s", m.Name, m.Version, cli.ShortDigest(m.Seal.String()), m.Repository)
	}
	for _, g := range d.Generations {
		var marks string
		for name, n := range d.Pointers {
			if n == g.Number {
				marks += " (" + name + ")"
			}
		}
		add("generation", "%d%s: %s, root %s, %s", g.Number, marks, cli.Count(len(g.Modules), "module"), g.RootDigest, g.Cause)
	}
	if k := d.Kernel; k != nil {
		add("kernel", "%s", k.Kernel)
		for _, a := range abilityRows(k) {
			add(a[0], "%s", a[1])
		}
	}
	if b := d.Boot; b != nil {
		for _, s := range b.Journal.Stages {
			add("boot stage "+s.Name, "%d ms: %s", s.Millis, s.Result)
		}
		if b.Memory.Total != 0 {
			add("memory at hand-over", "%s of %s available, the agent %s, at its highest %s",
				memory(b.Memory.Available), memory(b.Memory.Total), memory(b.Memory.Resident), memory(b.Memory.Peak))
		}
		if b.Freed != (boot.Freed{}) {
			add("freed of the initramfs", "%s, %s", cli.Count(b.Freed.Files, "file"), memory(b.Freed.Bytes))
		}
	}
	for _, p := range d.Problems {
		add("problem", "%s", p)
	}
	return cli.Pairs(w, pairs)
}

// memory returns a number of bytes, which isn't negative, in words.
func memory(n int64) string { return cli.Bytes(uint64(max(n, 0))) }

// abilityRows lists what the kernel can do, in words.
func abilityRows(k *mount.Abilities) [][2]string {
	rows := [][2]string{}
	for _, a := range []struct {
		name    string
		ability mount.Ability
	}{
		{"fs-verity", k.FSVerity},
		{"EROFS from a file", k.EROFSFromFile},
		{"EROFS by loop", k.EROFSByLoop},
		{"data-only layers", k.DataLayers},
		{"verity=require", k.VerityRequire},
		{"mounts beneath others", k.Beneath},
	} {
		answer := "yes"
		if !a.ability.OK {
			answer = "no: " + a.ability.Reason
		}
		rows = append(rows, [2]string{a.name, answer})
	}
	return rows
}
