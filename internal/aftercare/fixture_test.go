package aftercare

import (
	"path"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/difference"
	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/tree"
)

// files are a tree by absolute path: the content of a file, "-> target" for a symlink, "/" for an empty directory.
type files map[string]string

// base is what every root of the tests has.
var base = files{
	"/bin": "-> usr/bin", "/sbin": "-> usr/sbin", "/lib": "-> usr/lib",
	"/usr/sbin/ldconfig": "ldconfig", "/usr/bin/kmod": "kmod", "/usr/sbin/depmod": "-> ../bin/kmod",
	"/usr/bin/systemd-sysusers": "sysusers", "/usr/bin/systemd-tmpfiles": "tmpfiles",
	"/usr/lib/systemd/system/sysinit.target": "[Unit]\n", "/usr/lib/systemd/system/multi-user.target": "[Unit]\n",
	"/etc/ld.so.conf": "include /etc/ld.so.conf.d/*.conf\n", "/etc/ld.so.conf.d/libc.conf": "# libc\n/usr/local/lib\n",
	"/etc/ld.so.conf.d/x86_64-linux-gnu.conf": "/usr/local/lib/x86_64-linux-gnu\n/lib/x86_64-linux-gnu\n",
	"/usr/local/lib": "/", "/usr/lib/x86_64-linux-gnu/libc.so.6": "libc",
}

// with returns the files with others in addition or instead; "" takes one away.
func (f files) with(more files) files {
	all := files{}
	for _, from := range []files{f, more} {
		for name, content := range from {
			all[name] = content
			if content == "" {
				delete(all, name)
			}
		}
	}
	return all
}

func (f files) tree() *tree.Node {
	root := tree.NewDir(0o755)
	for name, content := range f {
		dir := root
		for part := range strings.SplitSeq(strings.Trim(path.Dir(name), "/"), "/") {
			if part == "" {
				continue
			}
			if dir.Child(part) == nil {
				dir.SetChild(part, tree.NewDir(0o755))
			}
			dir = dir.Child(part)
		}
		n := &tree.Node{Kind: tree.Regular, Mode: 0o755, Size: uint64(len(content)), Inline: []byte(content)}
		if content == "empty" {
			n = &tree.Node{Kind: tree.Regular, Mode: 0o644}
		}
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			n = &tree.Node{Kind: tree.Symlink, Mode: 0o777, Target: target}
		} else if content == "/" {
			if dir.Child(path.Base(name)) != nil {
				continue
			}
			n = tree.NewDir(0o755)
		}
		dir.SetChild(path.Base(name), n)
	}
	return root
}

// plan is what the change from one to the other calls for.
func plan(t testing.TB, from, to files, set func(*Input)) *Plan {
	t.Helper()
	in := Input{From: from.tree(), To: to.tree(), Systemd: true, Kernel: "6.12.0"}
	in.Difference = difference.Compare(in.From, in.To)
	if set != nil {
		set(&in)
	}
	return Decide(in)
}

// words are the steps of a plan, without reasons but for those of what is done later.
func (p *Plan) words() []string {
	var words []string
	add := func(what string, list []UnitStep) {
		for _, s := range list {
			words = append(words, what+" "+s.Unit)
		}
	}
	add("stop", p.Stop)
	for _, r := range p.Run {
		words = append(words, strings.TrimSpace("run "+r.Path+" "+strings.Join(r.Args, " ")))
	}
	if len(p.DaemonReload) > 0 {
		words = append(words, "daemon-reload")
	}
	add("reload", p.Reload)
	add("restart", p.Restart)
	add("start", p.Start)
	for _, s := range p.Later {
		words = append(words, "later "+s.Unit+": "+strings.Join(s.Because, "; "))
	}
	return append(words, p.Remarks...)
}

// runs is a service that runs.
func runs(name, program string, set func(*systemd.LoadedUnit)) systemd.LoadedUnit {
	u := systemd.LoadedUnit{Name: name, Load: "loaded", Active: "active", Sub: "running", Fragment: "/usr/lib/systemd/system/" + name}
	if kindOf(name) == "service" {
		u.Type, u.Programs, u.Arguments = "notify", []string{program}, []string{path.Base(program)}
	}
	if set != nil {
		set(&u)
	}
	return u
}

func active(name string) systemd.LoadedUnit {
	return systemd.LoadedUnit{Name: name, Load: "loaded", Active: "active", Sub: "active"}
}
