package compose

import (
	"fmt"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/tree"
)

// Input is one module of a composition.
type Input struct {
	// Name has passed module.CheckName. No two inputs have the same.
	Name string
	// Version goes into the report only.
	Version           string
	EffectivePriority int
	// Root is the module's canonical tree, the one that its seal was computed from.
	Root *tree.Node
	// Mask and Protected are the mask and protected_spec of its manifest.
	Mask, Protected []string
}

// Result is a composition.
type Result struct {
	// Root shares what one module alone brings with the input: whoever changes either, changes both.
	Root   *tree.Node
	Report Report

	names  []string
	owners owners
}

// Owner returns the name of the module that the path in the result comes from; for a directory,
// the one whose attributes it has. The path is relative to the root.
func (r *Result) Owner(path string) (string, bool) {
	owner, n := r.owners.of(r.Root, 0), r.Root
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." {
			continue
		}
		if n = n.Child(name); n == nil {
			return "", false
		}
		owner = r.owners.of(n, owner)
	}
	return r.names[owner], true
}

// owners has the layer that a node of the result comes from, where that is another one than its directory's.
type owners map[*tree.Node]int32

// of returns a node's layer; dir is that of the directory that it is in.
func (o owners) of(n *tree.Node, dir int32) int32 {
	if owner, ok := o[n]; ok {
		return owner
	}
	return dir
}

// ProtectedError says that a module ships or hides what another one protects. A caller that can
// do without one of the two may compose again without it.
type ProtectedError struct {
	// Path is absolute.
	Path string
	// Intruder ships or hides it; Owner protects it.
	Intruder, Owner string
	// Hides is set where Intruder takes Owner's path away with its mask or by having something
	// else in the place of a directory above.
	Hides bool
}

func (e *ProtectedError) Error() string {
	verb := "ships"
	if e.Hides {
		verb = "hides"
	}
	return fmt.Sprintf("module %s %s %s, which module %s protects", e.Intruder, verb, quotePath(e.Path), e.Owner)
}

// Compose merges the inputs, given in any order. The errors are fault.Refuse: in area Policy,
// wrapping a *ProtectedError, where a module takes what another one protects; in area Input where
// the inputs make no composition (none at all, two of one name, a glob that isn't one).
func Compose(inputs []Input) (Result, error) {
	c, err := newComposer(inputs)
	if err != nil {
		return Result{}, err
	}
	return c.compose()
}

func (c *composer) compose() (Result, error) {
	if err := c.findMoves(); err != nil {
		return Result{}, err
	}
	root := c.merge("", c.roots(), nil)
	if c.err != nil {
		return Result{}, fault.New(fault.Refuse, fault.Policy, "remove one of the two modules, or correct the protected_spec", "compose: %w", c.err)
	}
	for target := range c.moves {
		if !c.merged[target] {
			return Result{}, errEndless()
		}
	}
	c.makeCanonical(root)
	c.report.finish(root, c.owners)
	return Result{Root: root, Report: c.report, names: c.names(), owners: c.owners}, nil
}

// layer is an input with its specs compiled.
type layer struct {
	Input
	rank module.Rank
	// copies maps nodes of the input to those of the result, so that hard links stay linked: those that links names.
	copies map[*tree.Node]*tree.Node
	links  *tree.Links
	// twice says that another layer has the same tree: its nodes may be in the result once.
	twice bool
}

// composer holds one composition's working state.
type composer struct {
	// layers are sorted by rank, the winner first.
	layers    []layer
	masks     claims
	protected claims
	// moves maps a directory's path to what moves into it from elsewhere.
	moves map[string][]entry
	// merged are the paths of the result's directories.
	merged map[string]bool
	owners owners
	// nodes are to be handed out.
	nodes  []tree.Node
	report Report
	err    error
}

func newComposer(inputs []Input) (*composer, error) {
	if len(inputs) == 0 {
		return nil, fault.New(fault.Refuse, fault.Input, "assign a module to the node", "compose: there are no modules")
	}
	c := &composer{merged: make(map[string]bool)}
	roots := make(map[*tree.Node]bool)
	for _, in := range inputs {
		if in.Root == nil || in.Root.Kind != tree.Directory {
			return nil, fault.New(fault.Refuse, fault.Input, "", "compose: the root of module %q is not a directory", in.Name)
		}
		if err := module.CheckName(in.Name); err != nil {
			return nil, fmt.Errorf("compose: %w", err)
		}
		links := tree.FindLinks(in.Root)
		c.layers = append(c.layers, layer{
			Input:  in,
			rank:   module.Rank{EffectivePriority: in.EffectivePriority, Name: in.Name},
			links:  links,
			copies: make(map[*tree.Node]*tree.Node),
			twice:  roots[in.Root],
		})
		roots[in.Root] = true
	}
	c.owners = make(owners)
	slices.SortFunc(c.layers, func(a, b layer) int { return a.rank.Compare(b.rank) })
	seen := make(map[string]bool)
	for i, l := range c.layers {
		if seen[l.Name] {
			return nil, fault.New(fault.Refuse, fault.Input, "assign one version of it", "compose: module %s is there twice", l.Name)
		}
		seen[l.Name] = true
		own := "/" + module.ModulesDir + "/" + l.Name
		for _, spec := range []struct {
			name  string
			lines []string
			into  *claims
		}{{"mask", l.Mask, &c.masks}, {"protected_spec", append(slices.Clone(l.Protected), own), &c.protected}} {
			globs, err := module.ParseSpec(spec.lines)
			if err != nil {
				return nil, fmt.Errorf("compose: %s of module %s: %w", spec.name, l.Name, err)
			}
			for _, g := range globs {
				// A winner's mask has done what the same line further down would do.
				if spec.into == &c.masks && c.masks.has(g) {
					continue
				}
				spec.into.add(claim{g, i})
			}
		}
		c.report.Modules = append(c.report.Modules, Ranked{l.Name, l.Version, l.EffectivePriority})
	}
	c.masks.finish()
	c.protected.finish()
	return c, nil
}

func (c *composer) names() []string {
	names := make([]string, len(c.layers))
	for i, l := range c.layers {
		names[i] = l.Name
	}
	return names
}

// makeCanonical gives the root the attributes of /usr and empties /run, which takes the time of
// /usr: what sealing does to a tree (ociimage.Canonical), so that it finds nothing to do in this one.
func (c *composer) makeCanonical(root *tree.Node) {
	usr := root.Child("usr")
	hasUsr := usr != nil && usr.Kind == tree.Directory
	if hasUsr {
		root.Mode, root.UID, root.GID, root.Mtime, root.Xattrs = usr.Mode, usr.UID, usr.GID, usr.Mtime, slices.Clone(usr.Xattrs)
	}
	run := root.Child("run")
	if run == nil || run.Kind != tree.Directory {
		return
	}
	if hasUsr {
		run.Mtime = usr.Mtime
	}
	for name, child := range run.Entries() {
		c.report.Dropped = append(c.report.Dropped, Owned{"/run/" + name, c.layers[c.owners.of(child, c.owners[run])].Name})
		run.RemoveChild(name)
	}
}
