package change

import (
	"fmt"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/aftercare"
	"github.com/powernode/powernode-agent/internal/compose"
	"github.com/powernode/powernode-agent/internal/delta"
	"github.com/powernode/powernode-agent/internal/difference"
	"github.com/powernode/powernode-agent/internal/tree"
)

// Way is how a change comes to what runs.
type Way string

// The ways.
const (
	Live Way = "live"
	// SoftReboot is enough: user space ends and goes on in the new root, which update --reboot does. The next boot does it, too.
	SoftReboot Way = "soft-reboot"
	// Boot is the next boot of the machine.
	Boot Way = "reboot"
)

// Plan is what a change means for the node. Its JSON is documented in docs/operations.md. Lists are never null.
type Plan struct {
	Way Way `json:"way"`
	// Reasons are why the way isn't live, nor a soft-reboot where the kernel has to go, too; none where it is live.
	Reasons []string `json:"reasons"`
	// PullBytes is what the layers of modules that aren't in the store have, compressed.
	PullBytes int64 `json:"pull_bytes"`
	Files     Files `json:"files"`
	// Top is what happens to each name in the root directory.
	Top []difference.TopLevel `json:"top_level"`
	// Contested are paths that modules disagree about, with the one that wins and why; those that the change decides anew are
	// marked. At most so many as files are told; MoreContested counts the others.
	Contested     []Contested `json:"contested"`
	MoreContested int         `json:"more_contested,omitempty"`
	// Conflicts are local changes of files that the change changes too: the local ones stay, but for those that are replaced.
	Conflicts []LocalConflict `json:"local_conflicts"`
	// Ties are what processes hold in directories that are replaced, and what doesn't cross over to the new ones.
	Ties []Tie `json:"ties,omitempty"`
	// Settle is what of the writable layer is made to mean the same over the new root; nil where the change isn't live.
	Settle *delta.Plan `json:"settle,omitempty"`
	// Aftercare is what the running system needs then: units, programs, processes that use replaced files.
	Aftercare *aftercare.Plan `json:"aftercare,omitempty"`
}

// LocalConflict is a local change of something that the change changes too.
type LocalConflict struct {
	// Path is that of the local change, and Local what it is: "file", "whiteout", …
	Path  string `json:"path"`
	Local string `json:"local"`
	// Below is what the change does there, Origin where that is if it is elsewhere: of what was renamed here.
	Below  string `json:"below"`
	Origin string `json:"origin,omitempty"`
	// Replaced says that the local change goes, with all that is in it where it is a directory, by --local-changes replace.
	Replaced bool `json:"replaced,omitempty"`
	// Text says it to a person.
	Text string `json:"text"`
}

// Files says which files differ.
type Files struct {
	difference.Counts
	// List are the first of them by path, or all where that was asked for; More is how many there are beyond.
	List []File `json:"list"`
	More int    `json:"more,omitempty"`
}

// File is a path that differs.
type File struct {
	Path string          `json:"path"`
	Kind difference.Kind `json:"change"`
	What difference.What `json:"what,omitempty"`
	// Module is the one that it comes from afterwards, or came from where it is removed.
	Module string `json:"module,omitempty"`
}

// Contested is a conflict between modules.
type Contested struct {
	compose.Conflict
	// Decided says that the change brings the conflict, or decides it otherwise than before.
	Decided bool `json:"decided_now"`
}

// listMax is how many files a plan names unless all are asked for.
const listMax = 100

// planInput is what a plan is made from.
type planInput struct {
	difference *difference.Difference
	contested  []compose.Conflict
	// changed are the names of the modules that the change adds, changes or removes.
	changed []string
	owner   func(path string) string
	pull    int64
	all     bool
	reasons []string
	// notSoft is why a soft-reboot isn't enough; "" where it is.
	notSoft  string
	findings Findings
}

// plan puts a plan together. It is pure.
func plan(in planInput) *Plan {
	p := &Plan{
		Way: Live, Reasons: append([]string{}, in.reasons...), PullBytes: in.pull, Top: append([]difference.TopLevel{}, in.difference.Top...),
		Contested: []Contested{}, Conflicts: []LocalConflict{},
		Ties: in.findings.Ties, Settle: in.findings.Settle, Aftercare: in.findings.Aftercare,
	}
	p.Reasons = append(p.Reasons, in.findings.Obstacles...)
	switch {
	case len(p.Reasons) == 0:
	case in.notSoft == "":
		p.Way = SoftReboot
	default:
		p.Way = Boot
	}
	for _, c := range in.findings.Conflicts {
		p.Conflicts = append(p.Conflicts, LocalConflict{Path: c.Path, Local: c.Local.String(), Below: c.Below.String(), Origin: c.Origin, Replaced: slices.Contains(in.findings.Replaced, c.Path), Text: c.String()})
	}
	limit := listMax
	if in.all {
		limit = len(in.difference.Entries)
	}
	p.Files = Files{Counts: in.difference.Counts, List: []File{}}
	for _, e := range in.difference.Entries[:min(limit, len(in.difference.Entries))] {
		f := File{Path: e.Path, Kind: e.Kind, What: e.What}
		if in.owner != nil {
			f.Module = in.owner(e.Path)
		}
		p.Files.List = append(p.Files.List, f)
	}
	p.Files.More = len(in.difference.Entries) - len(p.Files.List)
	for _, c := range in.contested {
		decided := slices.Contains(in.changed, c.Winner) || slices.ContainsFunc(c.Losers, func(name string) bool { return slices.Contains(in.changed, name) })
		p.Contested = append(p.Contested, Contested{c, decided})
	}
	// What the change decides comes first; the report is in order of the paths.
	slices.SortStableFunc(p.Contested, func(a, b Contested) int {
		switch {
		case a.Decided == b.Decided:
			return 0
		case a.Decided:
			return -1
		}
		return 1
	})
	if n := len(p.Contested) - limit; n > 0 && !in.all {
		p.Contested, p.MoreContested = p.Contested[:limit], n
	}
	return p
}

// notSwapped are the names in the root directory that belong to the machine, and not to a root image.
var notSwapped = []string{"dev", "persist", "proc", "run", "sys", "tmp", "var"}

// obstacles says why a difference can't go live, whatever the machine. It is pure.
func obstacles(d *difference.Difference, kernel string) []string {
	var reasons []string
	for _, t := range d.Top {
		if slices.Contains(notSwapped, t.Name) {
			continue
		}
		switch {
		case t.Name == "boot":
			reasons = append(reasons, "files of /boot change, which count at the next boot only")
		case !isPlaceable(t.From) || !isPlaceable(t.To):
			reasons = append(reasons, fmt.Sprintf("/%s is a file in the root directory itself", t.Name))
		case t.What == difference.Type:
			reasons = append(reasons, fmt.Sprintf("/%s becomes something else in the root directory itself", t.Name))
		}
	}
	if kernel != "" {
		for _, dir := range []string{"/usr/lib/modules/" + kernel, "/lib/modules/" + kernel} {
			if e, ok := d.Entry(dir); ok && e.Kind == difference.Removed {
				reasons = append(reasons, "the modules of the running kernel, "+dir+", are removed")
			} else if n := removedModules(d.Below(dir)); n > 0 {
				reasons = append(reasons, fmt.Sprintf("%d modules of the running kernel are removed or changed", n))
			}
		}
	}
	return reasons
}

// isPlaceable reports whether a name in the root directory can come and go live: a directory or a link, or none.
func isPlaceable(n *tree.Node) bool {
	return n == nil || n.Kind == tree.Directory || n.Kind == tree.Symlink
}

// aboutKernel reports whether a difference is of what only a boot of the machine takes up: the kernel and its modules.
func aboutKernel(d *difference.Difference, kernel string) bool {
	if _, ok := d.Entry("/boot"); ok || len(d.Below("/boot")) > 0 {
		return true
	}
	for _, dir := range []string{"/usr/lib/modules/", "/lib/modules/"} {
		if kernel != "" && (removedModules(d.Below(dir+kernel)) > 0 || slices.ContainsFunc(d.Entries, func(e difference.Entry) bool { return e.Path == dir+kernel && e.Kind == difference.Removed })) {
			return true
		}
	}
	return false
}

// removedModules counts the kernel modules that a running kernel could miss.
func removedModules(entries []difference.Entry) int {
	n := 0
	for _, e := range entries {
		if e.Kind != difference.Added && strings.Contains(e.Path[strings.LastIndexByte(e.Path, '/')+1:], ".ko") && (e.Kind == difference.Removed || e.What >= difference.Content) {
			n++
		}
	}
	return n
}

// varRemark says what becomes of files of /var, which no change touches.
func varRemark(d *difference.Difference) string {
	if n := len(d.Below("/var")); n > 0 {
		return fmt.Sprintf("%d files of /var differ: /var belongs to the node, and takes what is missing in it at the next boot", n)
	}
	return ""
}
