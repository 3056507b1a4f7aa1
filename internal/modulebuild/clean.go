package modulebuild

import (
	"strings"

	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/tree"
)

// spec reads globs that this package wrote itself.
func spec(lines ...string) module.Spec {
	s, err := module.ParseSpec(lines)
	if err != nil {
		panic("internal error: " + err.Error())
	}
	return s
}

// foreign are paths that never belong to a module: kernel file systems, what the build left, what
// identifies the machine or holds its secrets, and state that is made anew on each node.
var foreign = []string{
	"/dev/**", "/proc/**", "/sys/**", "/run/**", "/tmp/**", "/var/tmp/**", "/.dockerenv",
	"/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/etc/mtab", "/etc/machine-id", "/var/lib/dbus/machine-id",
	"/etc/ssh/ssh_host_*", "/etc/ld.so.cache", "/etc/.pwd.lock",
	"/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/subuid-", "/etc/subgid-",
	"/etc/apt/sources.list", "/etc/apt/sources.list.d/**", "/etc/apt/apt.conf.d/99mmdebstrap", "/etc/dpkg/dpkg.cfg.d/99mmdebstrap",
	"/usr/sbin/policy-rc.d", "/root/.bash_history", "/root/.gnupg", "/root/.wget-hsts",
	"/var/lib/apt/**", "/var/lib/dpkg/*-old", "/var/lib/dpkg/available", "/var/lib/dpkg/lock*", "/var/lib/dpkg/parts/**",
	"/var/lib/dpkg/triggers/Lock", "/var/lib/dpkg/updates/**", "/var/lib/dpkg/diversions-old", "/var/lib/dpkg/statoverride-old",
	"/var/lib/systemd/catalog/database", "/var/lib/systemd/random-seed", "/var/lib/systemd/credential.secret", "/var/lib/ucf/cache/**",
	"/var/cache/apt/**", "/var/cache/debconf/**", "/var/log/apt",
}

// emptied are directories that stay with their own directories, but without files.
var emptied = []string{"/var/log/**", "/var/cache/**"}

// replaced are files that only a base has whole; the package documentation says what a module
// over a base has in their place.
var replaced = []string{"/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", "/var/lib/dpkg/status", "/var/lib/dpkg/triggers/File", "/var/lib/dpkg/triggers/Unincorp"}

// excluded is what dpkg leaves in the packages, in the words of its path-exclude and path-include
// options: documentation and translations. Licences stay.
var excluded = []string{
	"path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright",
	"path-exclude=/usr/share/man/*", "path-exclude=/usr/share/info/*", "path-exclude=/usr/share/locale/*",
	"path-include=/usr/share/locale/locale.alias", "path-exclude=/usr/share/lintian/*", "path-exclude=/usr/share/bug/*",
}

// cleanBase takes out of a whole system what doesn't belong to a module.
func (c *content) cleanBase() {
	c.clean(spec(foreign...))
	// An empty file, as opposed to none, lets systemd make up an identifier without taking the
	// boot for the first one, which would reset which units are enabled.
	c.addText("etc/machine-id", "")
}

// cleanOver takes out of what an overlay caught what doesn't belong to a module.
func (c *content) cleanOver() { c.clean(append(spec(foreign...), spec(replaced...)...)) }

func (c *content) clean(gone module.Spec) {
	noFiles := spec(emptied...)
	prune(c.root, "", func(path string, n *tree.Node) bool {
		isDir := n.Kind == tree.Directory
		if _, hit := gone.Match(path, isDir); hit {
			return true
		}
		_, hit := noFiles.Covers(path, isDir)
		return hit && n.Kind == tree.Regular
	})
}

// selectSpec keeps what fileSpec covers, if it isn't empty, with the directories above, and takes
// out what mask covers.
func (c *content) selectSpec(fileSpec, mask []string) error {
	keep, err := module.ParseSpec(fileSpec)
	if err != nil {
		return err
	}
	drop, err := module.ParseSpec(mask)
	if err != nil {
		return err
	}
	prune(c.root, "", func(path string, n *tree.Node) bool {
		_, hit := drop.Match(path, n.Kind == tree.Directory)
		return hit
	})
	if len(keep) > 0 {
		keepCovered(c.root, "", keep)
	}
	return nil
}

// keepCovered takes out what keep doesn't cover, and reports whether anything is left.
func keepCovered(dir *tree.Node, path string, keep module.Spec) bool {
	for name, n := range dir.Entries() {
		at := strings.TrimPrefix(path+"/"+name, "/")
		isDir := n.Kind == tree.Directory
		if _, hit := keep.Match(at, isDir); hit {
			continue
		}
		if !isDir || !keepCovered(n, at, keep) {
			dir.RemoveChild(name)
		}
	}
	return dir.Len() > 0
}

// addText adds a file with mode 0644 of root.
func (c *content) addText(path, text string) {
	n := &tree.Node{Kind: tree.Regular, Mode: 0o644, Size: uint64(len(text)), Inline: []byte(text)}
	c.own = append(c.own, n)
	c.add(path, n)
}

// pruneEqual takes out of what an overlay caught whatever is as the base has it, and gives
// directories whose entries alone changed the base's time.
func pruneEqual(upper, base *tree.Node, same func(a, b *tree.Node) bool) {
	for name, n := range upper.Entries() {
		b := base.Child(name)
		switch {
		case b == nil || b.Kind != n.Kind:
		case n.Kind == tree.Directory:
			pruneEqual(n, b, same)
			if n.Len() == 0 && equalAttributes(n, b) {
				upper.RemoveChild(name)
			}
		case equalAttributes(n, b) && same(n, b):
			upper.RemoveChild(name)
		}
	}
	if equalAttributes(upper, base) {
		upper.Mtime = base.Mtime
	}
}
