package agentcli

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/compose"
	"github.com/powernode/powernode-agent/internal/delta"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/tree"
)

// ownerDoc is the documented shape of `owner --output json`.
type ownerDoc struct {
	// Generation is the one that runs.
	Generation uint64      `json:"generation"`
	Paths      []ownedPath `json:"paths"`
}

func ownerCommand(app *cli.App) *cobra.Command {
	var stateDir string
	cmd := &cobra.Command{
		Use:   "owner PATH...",
		Short: "Say which module a path comes from",
		Long: `Say which module and version each path comes from in what runs now, which modules have it, too, and were
overridden or masked, and whether it was changed or removed on this node. A symlink at the end of a path is what is asked
about, and not what it leads to; those above it are followed.

The exit code is 0 when every path comes from a module, 1 when none does, and 8 when some do.`,
		Example: `  powernode-agent owner /etc/nginx/nginx.conf
  powernode-agent owner --output json /usr/bin/* `,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			doc, err := readOwners(cmd.Context(), "/", stateDir, args)
			if err != nil {
				return err
			}
			if err := app.Print(doc, doc.table); err != nil {
				return err
			}
			return doc.exit()
		},
	}
	stateFlag(cmd, &stateDir)
	return cmd
}

func (d ownerDoc) exit() error {
	found := 0
	for _, p := range d.Paths {
		if p.Module != "" {
			found++
		}
	}
	switch found {
	case len(d.Paths):
		return nil
	case 0:
		return cli.ExitStatus(cli.ExitFailure)
	default:
		return cli.ExitStatus(cli.ExitPartial)
	}
}

// table writes a line for each path as dpkg -S does, and what else is known of it below.
func (d ownerDoc) table(w io.Writer) error {
	var b strings.Builder
	for _, p := range d.Paths {
		by := "no module"
		if p.Module != "" {
			by = p.Module + " " + p.Version
		}
		fmt.Fprintf(&b, "%s: %s\n", by, cli.Printable(p.Path))
		for _, line := range p.lines() {
			fmt.Fprintf(&b, "  %s\n", cli.Printable(line))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// composition is what runs, with what each module ships.
type composition struct {
	result  compose.Result
	modules []store.GenerationModule
	roots   map[string]*tree.Node
	// changed is what the writable layers hold; nil where that isn't known.
	changed *delta.Delta
}

// readOwners finds out about paths. root is the running root, "/" on a node.
func readOwners(ctx context.Context, root, stateDir string, paths []string) (ownerDoc, error) {
	st, err := openStore(stateDir)
	if err != nil {
		return ownerDoc{}, err
	}
	defer st.Close()
	g, err := runningGeneration(st, root)
	if err != nil {
		return ownerDoc{}, err
	}
	c, err := composeAgain(ctx, st, g)
	if err != nil {
		return ownerDoc{}, err
	}
	facts, err := boot.ReadFacts(root)
	if err == nil {
		c.changed, err = changedHere(ctx, st, root, facts)
	}
	doc := ownerDoc{Generation: g.Number}
	for _, path := range paths {
		if path, err := filepath.Abs(path); err == nil {
			doc.Paths = append(doc.Paths, c.owned(root, path))
		}
	}
	if err != nil {
		for i := range doc.Paths {
			doc.Paths[i].Remarks = append(doc.Paths[i].Remarks, "what was changed here isn't known: "+fault.OneLine(err.Error()))
		}
	}
	return doc, nil
}

// runningGeneration returns the one whose root is mounted, or where the kernel doesn't show one of ours, the current one.
func runningGeneration(st *store.Store, root string) (store.Generation, error) {
	facts, _ := boot.ReadFacts(root) // on other systems there are none
	n := facts.Generation
	if n == 0 {
		var err error
		if n, err = st.Pointer(store.Current); err != nil {
			return store.Generation{}, err
		}
	}
	if n == 0 {
		return store.Generation{}, fault.New(fault.Refuse, fault.Input, "run it on a node that has booted", "there is no current generation in %s", st.Path())
	}
	return st.Generation(n)
}

// composeAgain composes a generation from the images of its modules in the store.
func composeAgain(ctx context.Context, st *store.Store, g store.Generation) (*composition, error) {
	c := &composition{modules: g.Modules, roots: make(map[string]*tree.Node)}
	var inputs []compose.Input
	for _, m := range g.Modules {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		manifest, err := assemble.Manifest(st, m.ManifestDigest)
		if err != nil {
			return nil, fmt.Errorf("read module %s: %w", m.Name, err)
		}
		if c.roots[m.Name], err = change.ReadTree(st, m.Seal); err != nil {
			return nil, fmt.Errorf("read module %s: %w", m.Name, err)
		}
		inputs = append(inputs, compose.Input{
			Name: m.Name, Version: m.Version, EffectivePriority: m.EffectivePriority, Root: c.roots[m.Name], Mask: manifest.Mask, Protected: manifest.ProtectedSpec,
		})
	}
	var err error
	c.result, err = compose.Compose(inputs)
	return c, err
}
