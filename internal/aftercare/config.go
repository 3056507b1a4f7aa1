package aftercare

import (
	"path"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/difference"
	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/tree"
)

// shared are directories in /etc that belong to no service in particular; those that end in ".d" don't either.
var shared = []string{
	"alternatives", "apt", "ca-certificates", "dbus-1", "default", "dpkg", "init", "kernel", "network", "opt", "pki", "security", "skel", "ssl",
	"sysconfig", "systemd", "udev", "X11", "xdg",
}

// busRules are the directories that the message bus reads (dbus-daemon(1)).
var busRules = []string{"/usr/share/dbus-1", "/usr/local/share/dbus-1", "/etc/dbus-1"}

// configuration has services read their configuration again: by a reload, or where they know none by a restart.
//
// A file of /etc belongs to a service if its command line names the file; if the file, or the directory in /etc that it
// lies in, bears the name of the unit or of its program; or if the service's module brought the file, or another one in that directory of
// /etc. The last two don't go for the module that systemd itself comes from, which brings all kinds of things.
func (w *unitWork) configuration() {
	base := w.owner(w.unitFile(w.From, "sysinit.target").path)
	owners := make(map[string]map[string]bool)
	for _, e := range w.entries {
		w.busRule(e)
		rest, ok := below(e.Path, "/etc")
		if !ok || isDirectory(e.From) && isDirectory(e.To) || e.Kind == difference.Changed && e.What < difference.Attributes || w.ownWay(e.Path) {
			continue
		}
		top, _, nested := strings.Cut(rest, "/")
		if nested && owners[top] == nil && !slices.Contains(shared, top) && !strings.HasSuffix(top, ".d") {
			owners[top] = w.ownersBelow("/etc/" + top)
		}
		owner := w.owner(e.Path)
		for _, u := range w.Units {
			if _, runs := w.running[u.Name]; !runs || kindOf(u.Name) != "service" || u.Type == "oneshot" {
				continue
			}
			fragment, _ := resolve(w.From, u.Fragment)
			module := w.owner(fragment)
			mine := module != "" && module != base && (module == owner || nested && owners[top][module])
			if mine || w.named(u, e.Path, rest) {
				w.readAgain(u, e)
			}
		}
	}
}

func (w *unitWork) readAgain(u systemd.LoadedUnit, e difference.Entry) {
	if u.CanReload {
		w.reload.add(u.Name, "%s is %s", e.Path, e.Kind)
		return
	}
	w.restartIt(u.Name, "%s is %s, and it can't read it again", e.Path, e.Kind)
}

// busRule has the message bus read its rules again: it watches directories that the swap covers.
func (w *unitWork) busRule(e difference.Entry) {
	if !slices.ContainsFunc(busRules, func(dir string) bool { _, ok := below(e.Path, dir); return ok }) {
		return
	}
	for _, name := range []string{"dbus.service", "dbus-broker.service"} {
		if u, runs := w.running[name]; runs && u.CanReload {
			w.reload.add(name, "%s is %s", e.Path, e.Kind)
		}
	}
}

// ownWay reports whether a path of /etc is dealt with otherwise.
func (w *unitWork) ownWay(name string) bool {
	for _, dir := range []string{"/etc/systemd", "/etc/sysusers.d", "/etc/tmpfiles.d", "/etc/sysctl.d", "/etc/binfmt.d", "/etc/modules-load.d", "/etc/dbus-1", linkerConfigDir} {
		if _, ok := below(name, dir); ok {
			return true
		}
	}
	return name == linkerConfig || Derived(name)
}

// named reports whether a unit's command line names the file, or the file bears the unit's or its program's name.
func (w *unitWork) named(u systemd.LoadedUnit, name, rest string) bool {
	if slices.ContainsFunc(u.Arguments, func(arg string) bool {
		_, after, ok := strings.Cut(arg, name)
		return ok && (after == "" || !strings.ContainsAny(after[:1], "/.-_") && !isWord(after[0]))
	}) {
		return true
	}
	stem, _, _ := strings.Cut(strings.TrimSuffix(u.Name, ".service"), "@")
	names := []string{stem}
	for _, program := range u.Programs {
		names = append(names, path.Base(program))
	}
	parts := strings.Split(rest, "/")
	first := parts[0]
	switch {
	case len(parts) == 1:
		first = strings.TrimSuffix(first, path.Ext(first))
	case first == "default" || first == "sysconfig":
		first = parts[1]
	}
	return slices.Contains(names, first)
}

func isWord(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

// ownersBelow returns the modules that something below a directory comes from, before or after the change.
func (w *unitWork) ownersBelow(dir string) map[string]bool {
	found := make(map[string]bool)
	for _, root := range []*tree.Node{w.From, w.To} {
		at, n := resolve(root, dir)
		if n == nil {
			continue
		}
		for name, node := range n.Walk() {
			if node.Kind != tree.Directory {
				found[w.owner(path.Join(at, name))] = true
			}
		}
	}
	return found
}

func isDirectory(n *tree.Node) bool { return n == nil || n.Kind == tree.Directory }
