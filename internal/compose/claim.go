package compose

import (
	"iter"
	"slices"

	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/tree"
)

// claim is a glob of the layer with that index.
type claim struct {
	glob  module.Glob
	owner int
}

// claims are globs of several layers, the winner's first, made to be looked up by path.
type claims struct {
	all []claim
	// exact holds those that match one path only, wild the others.
	exact map[string][]claim
	wild  []claim
	// above has the directories above the paths of exact, with the layer that has all those claims, or several.
	above map[string]int
}

// several stands for more than one layer.
const several = -1

// finish is called once all claims were added.
func (s *claims) finish() {
	s.above = make(map[string]int)
	for path, list := range s.exact {
		for dir := path; dir != ""; {
			dir = parent(dir)
			for _, c := range list {
				if owner, ok := s.above[dir]; ok && owner != c.owner {
					s.above[dir] = several
				} else if !ok {
					s.above[dir] = c.owner
				}
			}
		}
	}
}

// spare reports whether no claim is about what is below a directory, but for those of a layer: several for not even those.
func (s *claims) spare(dir string, but int) bool {
	owner, ok := s.above[dir]
	return len(s.wild) == 0 && (!ok || owner == but && but != several)
}

func (s *claims) add(c claim) {
	s.all = append(s.all, c)
	path, ok := c.glob.Path()
	if !ok {
		s.wild = append(s.wild, c)
		return
	}
	if s.exact == nil {
		s.exact = make(map[string][]claim)
	}
	s.exact[path] = append(s.exact[path], c)
}

func (s *claims) has(g module.Glob) bool {
	return slices.ContainsFunc(s.all, func(c claim) bool { return c.glob.String() == g.String() })
}

// matching yields the claims that match the path itself.
func (s *claims) matching(path string, isDir bool) iter.Seq[claim] {
	return func(yield func(claim) bool) {
		for _, list := range [][]claim{s.exact[path], s.wild} {
			for _, c := range list {
				if c.glob.Match(path, isDir) && !yield(c) {
					return
				}
			}
		}
	}
}

// checkProtected refuses entries at a path that another layer protects, and returns the
// protections that cover what is below it. active are those that cover the path already.
func (c *composer) checkProtected(path string, found []entry, active []claim) []claim {
	covering := active
	for _, p := range active {
		c.checkIntruders(path, p, found)
	}
	for p := range c.protected.matching(path, true) {
		if slices.ContainsFunc(active, p.same) {
			continue
		}
		covering = append(slices.Clip(covering), p)
		c.checkIntruders(path, p, slices.DeleteFunc(slices.Clone(found), func(e entry) bool {
			return !p.glob.Match(path, e.node.Kind == tree.Directory)
		}))
	}
	// What the protector has here under another path is protected under that path, too.
	for _, e := range found {
		if e.origin == "" {
			continue
		}
		for _, p := range c.protected.all {
			if _, by := p.covers(e.origin, e.node); by && p.owner == e.layer {
				c.checkIntruders(path, p, found)
			} else if by {
				c.checkIntruders(path, p, []entry{e})
			}
		}
	}
	return covering
}

// checkIntruders refuses what layers other than the protector have at a protected path.
func (c *composer) checkIntruders(path string, p claim, found []entry) {
	for _, e := range found {
		if e.layer == p.owner {
			continue
		}
		own := slices.IndexFunc(found, func(o entry) bool { return o.layer == p.owner })
		if e.node.Kind == tree.Directory && own >= 0 && found[own].node.Kind == tree.Directory && sameAttributes(e.node, found[own].node) {
			continue
		}
		c.refuse(&ProtectedError{Path: "/" + path, Intruder: c.layers[e.layer].Name, Owner: c.layers[p.owner].Name})
	}
}

// checkHidden refuses that the layer by takes e, with what is below, away from its layer, if that
// one protects any of it.
func (c *composer) checkHidden(path string, e entry, by int) {
	if by == e.layer {
		return
	}
	for _, p := range c.protected.all {
		if p.owner != e.layer {
			continue
		}
		for below, n := range e.node.Walk() {
			at, origin := join2(path, below), join2(e.origin, below)
			if at, hit := p.covers(at, n); hit {
				c.refuse(&ProtectedError{Path: "/" + at, Intruder: c.layers[by].Name, Owner: c.layers[e.layer].Name, Hides: true})
			} else if _, hit := p.covers(origin, n); hit && e.origin != "" {
				c.refuse(&ProtectedError{Path: "/" + origin, Intruder: c.layers[by].Name, Owner: c.layers[e.layer].Name, Hides: true})
			}
		}
	}
}

func (c *composer) refuse(err error) {
	if c.err == nil {
		c.err = err
	}
}

func (p claim) same(o claim) bool { return p.owner == o.owner && p.glob.String() == o.glob.String() }

// covers returns the path if the claim covers it.
func (p claim) covers(path string, n *tree.Node) (string, bool) {
	return path, p.glob.Covers(path, n.Kind == tree.Directory)
}

// join2 is join for a path below that may be "".
func join2(dir, below string) string {
	if below == "" {
		return dir
	}
	return join(dir, below)
}
