package compose

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/powernode/powernode-agent/internal/tree"
)

// Report says what a composition decided. All paths are absolute; lists are in byte order of
// their first field unless they say otherwise. The same inputs give the same report.
type Report struct {
	// Modules are the inputs, the winner first.
	Modules []Ranked `json:"modules"`
	// Entries is the number of names in the result without the root; Directories is how many of
	// these are directories.
	Entries     int `json:"entries"`
	Directories int `json:"directories"`
	// Shared is how often a module ships a file that a winning one has, too, equal in all but
	// its times.
	Shared    int        `json:"shared"`
	Conflicts []Conflict `json:"conflicts"`
	// Masked are the paths that masks dropped, each with everything below it.
	Masked []Masked `json:"masked"`
	// Moves are the directories whose content went where a symlink in their place leads.
	Moves []Move `json:"moves"`
	// Dropped are the entries that moves had put into /run, which is empty when a node boots.
	Dropped []Owned `json:"dropped"`
	// Libraries are shared libraries of one name that different modules have in different
	// directories: the dynamic linker takes the first it finds.
	Libraries []Library `json:"libraries"`
}

// Ranked is a module of the composition.
type Ranked struct {
	Name              string `json:"name"`
	Version           string `json:"version"`
	EffectivePriority int    `json:"effective_priority"`
}

// Difference is what makes a conflict.
type Difference string

// The differences, the weightiest first.
const (
	DifferentKind       Difference = "kind"       // a file against a directory, a symlink against a file
	DifferentContent    Difference = "content"    // other bytes, target or device number
	DifferentAttributes Difference = "attributes" // other mode, owner or xattrs
)

// Conflict is a path that modules disagree about.
type Conflict struct {
	Path   string `json:"path"`
	Winner string `json:"winner"`
	// Losers are in order of rank.
	Losers     []string   `json:"losers"`
	Difference Difference `json:"difference"`
	// Reason says why the winner won.
	Reason string `json:"reason"`
	// Lost are the paths of the losers below Path that aren't in the result.
	Lost []string `json:"lost,omitempty"`
}

// Masked is a path that the mask of a module, By, dropped from a module.
type Masked struct {
	Path   string `json:"path"`
	Module string `json:"module"`
	By     string `json:"by"`
}

// Move says that what Module has below From went to To, where the symlink of LinkedBy leads.
type Move struct {
	From     string `json:"from"`
	To       string `json:"to"`
	Module   string `json:"module"`
	LinkedBy string `json:"linked_by"`
}

// Owned is a path with the module that ships it.
type Owned struct {
	Path   string `json:"path"`
	Module string `json:"module"`
}

// Library is a shared library's file name and where it is found.
type Library struct {
	Name  string  `json:"name"`
	Found []Owned `json:"found"`
}

func (c *composer) noteMasked(path string, e entry, m claim) {
	c.checkHidden(path, e, m.owner)
	c.report.Masked = append(c.report.Masked, Masked{"/" + path, c.layers[e.layer].Name, c.layers[m.owner].Name})
}

// noteAttributes reports the directories whose attributes differ from the first's.
func (c *composer) noteAttributes(path string, first entry, dirs []entry) {
	if path == "" {
		return // the root takes those of /usr in any case
	}
	var losers []entry
	for _, d := range dirs {
		if !d.moved && !sameAttributes(d.node, first.node) {
			losers = append(losers, d)
		}
	}
	c.noteConflict(path, first, losers, DifferentAttributes, nil)
}

// noteLosers reports the entries that the winner replaces.
func (c *composer) noteLosers(path string, winner entry, rest []entry) {
	var losers []entry
	var lost []string
	difference := DifferentAttributes
	for _, e := range rest {
		c.checkHidden(path, e, winner.layer)
		switch {
		case e.node.Kind != winner.node.Kind || e.node.Kind == tree.Directory:
			// Two directories are here only with a file ranking between them.
			difference = DifferentKind
			for below := range e.node.Walk() {
				if below != "" {
					lost = append(lost, "/"+join(path, below))
				}
			}
		case !sameContent(e.node, winner.node):
			if difference == DifferentAttributes {
				difference = DifferentContent
			}
		case sameAttributes(e.node, winner.node):
			c.report.Shared++
			continue
		}
		losers = append(losers, e)
	}
	slices.Sort(lost)
	c.noteConflict(path, winner, losers, difference, slices.Compact(lost))
}

func (c *composer) noteConflict(path string, winner entry, losers []entry, difference Difference, lost []string) {
	if len(losers) == 0 {
		return
	}
	w := c.layers[winner.layer]
	conflict := Conflict{Path: "/" + path, Winner: w.Name, Difference: difference, Lost: lost}
	var reasons []string
	for _, e := range losers {
		l := c.layers[e.layer]
		conflict.Losers = append(conflict.Losers, l.Name)
		switch {
		case l.Name == w.Name:
			reasons = append(reasons, "its own path goes before /"+e.origin+", which moved here")
		case l.EffectivePriority == w.EffectivePriority:
			reasons = append(reasons, fmt.Sprintf("it goes before %s by name, at the same priority %d", l.Name, l.EffectivePriority))
		default:
			reasons = append(reasons, fmt.Sprintf("its priority %d is higher than %s's %d", w.EffectivePriority, l.Name, l.EffectivePriority))
		}
	}
	conflict.Reason = strings.Join(reasons, "; ")
	c.report.Conflicts = append(c.report.Conflicts, conflict)
}

// finish counts, looks for libraries and puts the lists in order.
func (r *Report) finish(root *tree.Node, owners owners) {
	libraries := make(map[string][]Owned)
	r.count("", root, owners.of(root, 0), owners, func(path, name string, owner int32) {
		libraries[name] = append(libraries[name], Owned{"/" + path, r.Modules[owner].Name})
	})
	for name, found := range libraries {
		if slices.ContainsFunc(found, func(o Owned) bool { return o.Module != found[0].Module }) {
			r.Libraries = append(r.Libraries, Library{name, found})
		}
	}
	slices.SortFunc(r.Libraries, func(a, b Library) int { return strings.Compare(a.Name, b.Name) })
	slices.SortStableFunc(r.Conflicts, func(a, b Conflict) int { return strings.Compare(a.Path, b.Path) })
	slices.SortStableFunc(r.Masked, func(a, b Masked) int { return strings.Compare(a.Path, b.Path) })
	slices.SortStableFunc(r.Moves, func(a, b Move) int { return strings.Compare(a.From, b.From) })
	slices.SortStableFunc(r.Dropped, func(a, b Owned) int { return strings.Compare(a.Path, b.Path) })
}

// count counts the names below a directory, and calls library for what may be a shared library.
func (r *Report) count(path string, dir *tree.Node, owner int32, owners owners, library func(path, name string, owner int32)) {
	for name, n := range dir.Entries() {
		r.Entries++
		if n.Kind == tree.Directory {
			r.Directories++
			r.count(join(path, name), n, owners.of(n, owner), owners, library)
		} else if strings.Contains(name, ".so.") {
			if at := join(path, name); isLibrary(at, name) {
				library(at, name, owners.of(n, owner))
			}
		}
	}
}

// isLibrary reports whether a path is where the dynamic linker may look for a library with a
// version in its name, such as libssl.so.3.
func isLibrary(path, name string) bool {
	return strings.Contains(name, ".so.") && (strings.HasPrefix(path, "usr/lib") || strings.HasPrefix(path, "lib") ||
		strings.HasPrefix(path, "usr/local/lib") || strings.HasPrefix(path, "opt/"))
}

// WriteText writes the report for people, with at most limit lines in each of its lists.
func (r *Report) WriteText(w io.Writer, limit int) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%d modules, %d entries, %d of them directories; %d shared, %d conflicts\n",
		len(r.Modules), r.Entries, r.Directories, r.Shared, len(r.Conflicts))
	section(&b, "conflicts", r.Conflicts, limit, func(c Conflict) string {
		s := fmt.Sprintf("%s: %s wins over %s (%s): %s", quotePath(c.Path), c.Winner, strings.Join(c.Losers, ", "), c.Difference, c.Reason)
		if n := len(c.Lost); n > 0 {
			s += fmt.Sprintf("; %d paths below it are lost", n)
		}
		return s
	})
	section(&b, "masked", r.Masked, limit, func(m Masked) string {
		return fmt.Sprintf("%s of %s, by the mask of %s", quotePath(m.Path), m.Module, m.By)
	})
	section(&b, "moved", r.Moves, limit, func(m Move) string {
		return fmt.Sprintf("%s of %s to %s, where the symlink of %s leads", quotePath(m.From), m.Module, quotePath(m.To), m.LinkedBy)
	})
	section(&b, "dropped from /run", r.Dropped, limit, func(o Owned) string {
		return fmt.Sprintf("%s of %s", quotePath(o.Path), o.Module)
	})
	section(&b, "libraries in several places", r.Libraries, limit, func(l Library) string {
		var found []string
		for _, o := range l.Found {
			found = append(found, quotePath(o.Path)+" of "+o.Module)
		}
		return quotePath(l.Name) + ": " + strings.Join(found, ", ")
	})
	_, err := io.WriteString(w, b.String())
	return err
}

func section[T any](b *strings.Builder, title string, items []T, limit int, line func(T) string) {
	if len(items) == 0 {
		return
	}
	fmt.Fprintf(b, "%s:\n", title)
	for i, item := range items {
		if i == limit {
			fmt.Fprintf(b, "  and %d more\n", len(items)-limit)
			return
		}
		fmt.Fprintf(b, "  %s\n", line(item))
	}
}

// quotePath quotes a path that could disturb a terminal or be misread in a line of text.
func quotePath(p string) string {
	if q := strconv.Quote(p); len(q) != len(p)+2 || strings.ContainsAny(p, " ,;") {
		return q
	}
	return p
}
