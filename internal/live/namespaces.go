package live

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/powernode/powernode-agent/internal/mount"
)

// Namespace is a mount namespace of other processes that goes on with the old tree of some directory
// until those processes are restarted.
type Namespace struct {
	// Inode is the namespace's number, as in "mnt:[4026531841]".
	Inode uint64 `json:"inode"`
	// PIDs are the processes in it, at most 16 of them, Commands their short names and Units the
	// systemd units that they belong to.
	PIDs     []int    `json:"pids"`
	Commands []string `json:"commands,omitempty"`
	Units    []string `json:"units,omitempty"`
	// Keeps are the top-level directories of which it keeps the old tree.
	Keeps []string `json:"keeps"`
	// receives are the mounts that would receive the new trees, all the same.
	receives []mount.ID
	// covers are new trees that came on top of mounts of its own, and wider those that came in the place of what it had narrowed.
	covers, wider []mount.ID
	looked        bool
}

const pidsMax = 16

// namespaces finds the mount namespaces that are to keep the old trees of the given directories: those
// that see them by mounts of their own. That is what a sandbox is made of (ProtectSystem=,
// ReadOnlyPaths=, InaccessiblePaths= and their like, systemd.exec(5)), and a tree that came on top of
// it, as mounts propagate, would take the sandbox away: it could be written.
//
// A namespace whose "/" propagates from ours and has nothing of its own there (PrivateTmp=) sees the new
// trees at once. One that can't be looked at, since its processes are just ending, is passed over.
func (w *work) namespaces(names []string) ([]Namespace, error) {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return nil, fmt.Errorf("look at the mount namespaces: %w", err)
	}
	table, err := mount.ReadTable()
	if err != nil {
		return nil, err
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	views := w.views(table, names)
	found := make(map[string]*Namespace)
	for _, process := range processes {
		pid, err := strconv.Atoi(filepath.Base(process))
		link, linkErr := os.Readlink(process + "/ns/mnt")
		if err != nil || linkErr != nil || link == own {
			continue
		}
		n := found[link]
		if n == nil {
			n = &Namespace{}
			n.Inode, _ = strconv.ParseUint(strings.Trim(link, "mnt:[]"), 10, 64)
			found[link] = n
		}
		n.add(pid, process)
		n.lookBy(process, views)
	}
	var kept []Namespace
	for _, n := range found {
		if len(n.Keeps) > 0 {
			kept = append(kept, *n)
		}
	}
	slices.SortFunc(kept, func(a, b Namespace) int { return cmp.Compare(a.Inode, b.Inode) })
	return kept, nil
}

// lookBy looks at a namespace, once, by what a process in it sees. One that changed its root sees only
// part of it.
func (n *Namespace) lookBy(process string, views []view) {
	if root, err := os.Readlink(process + "/root"); err != nil || root != "/" || n.looked {
		return
	}
	f, err := os.Open(process + "/mountinfo")
	if err != nil {
		return
	}
	defer f.Close()
	theirs, err := mount.ParseTable(f)
	if err != nil {
		return
	}
	n.looked = true
	n.look(views, theirs)
}

// add notes a process.
func (n *Namespace) add(pid int, process string) {
	if len(n.PIDs) < pidsMax {
		n.PIDs = append(n.PIDs, pid)
	}
	if command, err := os.ReadFile(process + "/comm"); err == nil {
		if c := strings.TrimSpace(string(command)); !slices.Contains(n.Commands, c) && len(n.Commands) < pidsMax {
			n.Commands = append(n.Commands, c)
		}
	}
	if cgroup, err := os.ReadFile(process + "/cgroup"); err == nil {
		if u := unitOf(string(cgroup)); u != "" && !slices.Contains(n.Units, u) && len(n.Units) < pidsMax {
			n.Units = append(n.Units, u)
		}
	}
}

// unitOf finds the system manager's unit in the text of /proc/PID/cgroup: the first element of the path that is no slice, in the
// line of the unified hierarchy or of systemd's own. What comes below it is that unit's own: those of a user's manager
// are below user@UID.service, and those of a container below what runs it.
func unitOf(cgroup string) string {
	for line := range strings.Lines(cgroup) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 || fields[1] != "" && fields[1] != "name=systemd" {
			continue
		}
		for element := range strings.SplitSeq(fields[2], "/") {
			// A name that the kernel uses itself has an underscore in front.
			element = strings.TrimPrefix(element, "_")
			if element == "" || strings.HasSuffix(element, ".slice") {
				continue
			}
			if strings.HasSuffix(element, ".service") || strings.HasSuffix(element, ".scope") {
				return element
			}
			break
		}
	}
	return ""
}
