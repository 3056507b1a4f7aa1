package agentcli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/aftercare"
	"github.com/powernode/powernode-agent/internal/compose"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/tree"
)

// ownedPath is what is known of one path.
type ownedPath struct {
	// Path is absolute, as it was asked for; Resolved is where that is, once symlinks above its end are followed, where that is
	// another.
	Path     string `json:"path"`
	Resolved string `json:"resolved,omitempty"`
	// Module is the one that it comes from, "" where it comes from none. Of a directory it is the one whose mode and owner it has.
	Module  string `json:"module,omitempty"`
	Version string `json:"version,omitempty"`
	// Others have the path, too, in the order in which they would win.
	Others []otherOwner `json:"others,omitempty"`
	// Local says what was done to it on this node.
	Local localChange `json:"local,omitempty"`
	// Remarks are what a person should know of the answer.
	Remarks []string `json:"remarks,omitempty"`
}

// otherOwner is a module that has a path which comes from another one.
type otherOwner struct {
	Module  string `json:"module"`
	Version string `json:"version"`
	// Differs is in what it differs from the path that won: "same", "attributes", "content" or "kind".
	Differs compose.Difference `json:"differs"`
	// MaskedBy is the module whose mask hides it; "" where it lost by its priority. Reason says why it lost then.
	MaskedBy string `json:"masked_by,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

// same is a Difference that isn't one: nobody sees which of the two it is.
const same compose.Difference = "same"

// owned finds out about an absolute path.
func (c *composition) owned(root, path string) ownedPath {
	p := ownedPath{Path: path}
	at, ok := inRoot(root, path)
	if !ok {
		// A directory above it was removed here, or never was.
		if found, n := aftercare.Locate(c.result.Root, path, false); n != nil {
			at = found
		} else {
			at = path
		}
	}
	if at != path {
		p.Resolved = at
	}
	n := c.result.Root.Lookup(at)
	if name, ok := c.result.Owner(at); ok {
		p.Module, p.Version = name, c.module(name).Version
	}
	p.Others = c.others(at, n, p.Module)
	p.Local = c.local(at, n)
	if own := ofTheMachine(at); own != "" && n != nil {
		p.Local = ""
		p.Remarks = append(p.Remarks, fmt.Sprintf("%s is the machine's own: what is there began as the module has it, and isn't compared", own))
	}
	return p
}

func (c *composition) module(name string) store.GenerationModule {
	i := slices.IndexFunc(c.modules, func(m store.GenerationModule) bool { return m.Name == name })
	if i < 0 {
		return store.GenerationModule{}
	}
	return c.modules[i]
}

// others returns the modules besides the winner that have the path.
func (c *composition) others(path string, won *tree.Node, winner string) []otherOwner {
	modules := slices.Clone(c.modules)
	slices.SortFunc(modules, func(a, b store.GenerationModule) int { return rankOf(a).Compare(rankOf(b)) })
	report := c.result.Report
	var list []otherOwner
	for _, m := range modules {
		n := c.shipped(m.Name, path)
		if m.Name == winner || n == nil {
			continue
		}
		o := otherOwner{Module: m.Name, Version: m.Version, Differs: differenceOf(n, won)}
		for _, masked := range report.Masked {
			if masked.Module == m.Name && (masked.Path == path || strings.HasPrefix(path, masked.Path+"/")) {
				o.MaskedBy = masked.By
			}
		}
		if i := slices.IndexFunc(report.Conflicts, func(f compose.Conflict) bool { return f.Path == path }); i >= 0 && o.MaskedBy == "" && o.Differs != same {
			o.Reason = report.Conflicts[i].Reason
			if len(report.Conflicts[i].Losers) > 1 {
				o.Reason = rankReason(c.module(winner), m)
			}
		}
		list = append(list, o)
	}
	return list
}

// rankReason says why one module goes before another.
func rankReason(winner, loser store.GenerationModule) string {
	if winner.EffectivePriority == loser.EffectivePriority {
		return fmt.Sprintf("%s goes before it by name, at the same priority %d", winner.Name, winner.EffectivePriority)
	}
	return fmt.Sprintf("%s's priority %d is higher than its %d", winner.Name, winner.EffectivePriority, loser.EffectivePriority)
}

// shipped returns what a module itself has at a path of the result, also where its directories went elsewhere.
func (c *composition) shipped(name, path string) *tree.Node {
	root := c.roots[name]
	if n := root.Lookup(path); n != nil {
		return n
	}
	for _, move := range c.result.Report.Moves {
		if move.Module != name {
			continue
		}
		if rest, ok := strings.CutPrefix(path, move.To+"/"); ok {
			if n := root.Lookup(move.From + "/" + rest); n != nil {
				return n
			}
		}
	}
	return nil
}

// differenceOf compares what two modules have at one path; won may be nil where a mask hides all.
func differenceOf(n, won *tree.Node) compose.Difference {
	switch {
	case won == nil || n.Kind != won.Kind:
		return compose.DifferentKind
	case n.Kind != tree.Directory && (n.Size != won.Size || n.Digest != won.Digest || !bytes.Equal(n.Inline, won.Inline) || n.Target != won.Target || n.Rdev != won.Rdev):
		return compose.DifferentContent
	case n.Mode != won.Mode || n.UID != won.UID || n.GID != won.GID || !slices.EqualFunc(n.Xattrs, won.Xattrs, func(a, b tree.Xattr) bool { return a.Name == b.Name && bytes.Equal(a.Value, b.Value) }):
		return compose.DifferentAttributes
	}
	return same
}

// lines are what the table says besides the owner.
func (p ownedPath) lines() []string {
	var lines []string
	if p.Resolved != "" {
		lines = append(lines, "it is "+p.Resolved)
	}
	for _, o := range p.Others {
		who := o.Module + " " + o.Version
		switch {
		case o.MaskedBy != "":
			lines = append(lines, fmt.Sprintf("%s has it, too, masked by %s", who, o.MaskedBy))
		case o.Differs == same:
			lines = append(lines, who+" has the same")
		default:
			line := fmt.Sprintf("%s has it, too, with other %s", who, map[compose.Difference]string{
				compose.DifferentContent: "content", compose.DifferentAttributes: "attributes", compose.DifferentKind: "kind of file",
			}[o.Differs])
			if o.Reason != "" {
				line += ": " + o.Reason
			}
			lines = append(lines, line)
		}
	}
	if said := map[localChange]string{
		localContent: "changed here", localAttributes: "its mode, owner or attributes were changed here", localAdded: "it was made here", localRemoved: "removed here",
	}[p.Local]; said != "" {
		lines = append(lines, said)
	}
	return append(lines, p.Remarks...)
}

// inRoot returns where a path leads in the root as it is seen now: the symlinks above its end followed, as the kernel does it for
// whoever has that root as "/". ok is false where there is no such directory.
func inRoot(root, path string) (string, bool) {
	dir, err := os.Open(root)
	if err != nil {
		return "", false
	}
	defer dir.Close()
	fd, err := unix.Openat2(int(dir.Fd()), filepath.Dir(path), &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return "", false
	}
	defer unix.Close(fd)
	real, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return "", false
	}
	if root = filepath.Clean(root); root != "/" {
		rest, ok := strings.CutPrefix(real+"/", root+"/")
		if !ok {
			return "", false
		}
		real = filepath.Clean("/" + rest)
	}
	return filepath.Join(real, filepath.Base(path)), true
}
