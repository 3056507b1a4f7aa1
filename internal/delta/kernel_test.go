package delta

import (
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/mount"
)

// change is what a person does in a union, what must be there afterwards over any image, and what must be
// wrong over the new one if nothing is settled.
type change struct {
	from, to []string // files of the images, as node.image takes them
	do       func(m *mounted)
	want     map[string]string // by path: content, "" for nothing, "/" and the names for a directory
	// old is what there is over the old image instead: before the new one's files come.
	old   map[string]string
	wrong string   // a path at which the wrong thing is seen unsettled
	steps []string // "do path"
	// whole says that the kernel copies these files up with their content at level enforced.
	whole bool
	eio   bool // what is wrong is EIO at level enforced
}

var changes = map[string]change{
	"a changed mode": {
		from:  []string{"usr/bin/x", big("old"), "usr/bin/same", big("same")},
		to:    []string{"usr/bin/x", big("new"), "usr/bin/same", big("same")},
		do:    func(m *mounted) { m.chmod("usr/bin/x", 0o700); m.chmod("usr/bin/same", 0o700) },
		want:  map[string]string{"usr/bin/x": big("old"), "usr/bin/same": big("same")},
		wrong: "usr/bin/x", eio: true,
		steps: []string{"copy-content /usr/bin/x"},
	},
	"a changed mode of a small file": {
		from:  []string{"etc/x", "old"},
		to:    []string{"etc/x", "new"},
		do:    func(m *mounted) { m.chmod("etc/x", 0o600) },
		want:  map[string]string{"etc/x": "old"},
		steps: []string{"copy-content /etc/x"}, whole: true,
	},
	"a renamed file": {
		from:  []string{"etc/x", big("old"), "usr/", ""},
		to:    []string{"etc/x", big("new"), "usr/", ""},
		do:    func(m *mounted) { m.rename("etc/x", "etc/y"); m.rename("etc/y", "usr/y") },
		want:  map[string]string{"usr/y": big("old"), "etc/x": ""},
		wrong: "usr/y", eio: true,
		steps: []string{"copy-content /usr/y"},
	},
	"a hard link to a file of the image": {
		from:  []string{"etc/x", big("old")},
		to:    []string{"etc/x", big("new")},
		do:    func(m *mounted) { must(m, os.Link(m.path("etc/x"), m.path("etc/y"))) },
		want:  map[string]string{"etc/x": big("old"), "etc/y": big("old")},
		wrong: "etc/y", eio: true,
		steps: []string{"copy-content /etc/x", "copy-content /etc/y"},
	},
	"a file whose mode was changed is removed": {
		from:  []string{"etc/x", big("old"), "etc/z", "z"},
		to:    []string{"etc/z", "z"},
		do:    func(m *mounted) { m.chmod("etc/x", 0o600) },
		want:  map[string]string{"etc/x": big("old")},
		wrong: "etc/x",
		steps: []string{"copy-content /etc/x"},
	},
	"a renamed directory": {
		from: []string{"opt/a/f", big("old"), "opt/a/sub/g", "small", "opt/a/sub/l", "-> g", "opt/a/gone", "gone", "opt/a/same", big("same"), "opt/a/hard", "= opt/a/same"},
		to:   []string{"opt/a/f", big("new"), "opt/a/sub/g", "other", "opt/a/sub/more", "more", "opt/a/gone", "gone", "opt/a/same", big("same")},
		do: func(m *mounted) {
			m.chmod("opt/a/same", 0o600)
			m.rename("opt/a", "opt/b")
			m.remove("opt/b/gone")
			m.write("opt/b/mine", "mine")
		},
		want: map[string]string{
			"opt/b": "/f hard mine same sub", "opt/b/sub": "/g l", "opt/b/f": big("old"), "opt/b/sub/g": "small", "opt/b/mine": "mine",
			"opt/b/same": big("same"), "opt/b/hard": big("same"), "opt/b/gone": "", "opt/a": "",
		},
		wrong: "opt/b/f",
		steps: []string{"make-whole /opt/b"},
	},
	"a renamed directory in a renamed directory": {
		from: []string{"opt/a/one/f", big("old"), "opt/a/two/g", big("g"), "usr/x/h", big("h"), "usr/y", "y"},
		to:   []string{"opt/a/one/f", big("new"), "opt/a/two/g", big("g"), "usr/x/h", big("h2"), "usr/y", "y"},
		do: func(m *mounted) {
			m.rename("opt/a/one", "opt/a/uno")
			m.rename("usr/x", "opt/a/x")
			m.rename("opt/a", "opt/b")
		},
		want: map[string]string{
			"opt/b": "/two uno x", "opt/b/uno": "/f", "opt/b/uno/f": big("old"), "opt/b/two/g": big("g"), "opt/b/x/h": big("h"), "opt/a": "", "usr": "/y",
		},
		wrong: "opt/b/uno/f",
		steps: []string{"make-whole /opt/b"},
	},
	"a renamed directory at the top": {
		from:  []string{"opt/f", big("old"), "usr/x", "x"},
		to:    []string{"opt/f", big("new"), "usr/x", "x"},
		do:    func(m *mounted) { m.rename("opt", "srv") },
		want:  map[string]string{"srv/f": big("old"), "opt": ""},
		wrong: "srv/f",
		steps: []string{"make-whole /srv"},
	},
	"a renamed directory that stays the same": {
		from: []string{"opt/a/f", big("same"), "etc/x", "old"},
		to:   []string{"opt/a/f", big("same"), "etc/x", "new"},
		do:   func(m *mounted) { m.rename("opt/a", "opt/b"); m.chmod("opt/b/f", 0o600) },
		want: map[string]string{"opt/b/f": big("same"), "opt/a": "", "etc/x": "new"},
		old:  map[string]string{"etc/x": "old"},
	},
	"a directory that was made before the image brings one": {
		from: []string{"etc/x", "x"},
		to:   []string{"etc/x", "x", "etc/d/image", "image", "etc/d/both", "image's", "etc/d/sub/s", "s"},
		do: func(m *mounted) {
			m.mkdir("etc/d")
			m.mkdir("etc/d/sub")
			m.write("etc/d/both", "mine")
			m.write("etc/d/sub/m", "m")
		},
		want:  map[string]string{"etc/d": "/both image sub", "etc/d/both": "mine", "etc/d/sub": "/m s"},
		old:   map[string]string{"etc/d": "/both sub", "etc/d/sub": "/m"},
		wrong: "etc/d",
		steps: []string{"merge /etc/d"},
	},
	"a directory that replaced the image's": {
		from: []string{"etc/d/f", "f"},
		to:   []string{"etc/d/f", "f2", "etc/d/g", "g"},
		do:   func(m *mounted) { m.remove("etc/d"); m.mkdir("etc/d"); m.write("etc/d/mine", "mine") },
		want: map[string]string{"etc/d": "/mine"},
	},
	"written, removed, linked and made": {
		from: []string{"etc/x", "old", "etc/gone", "gone", "etc/d/f", "f"},
		to:   []string{"etc/x", "new", "etc/gone", "gone2", "etc/d", "a file now", "etc/l/f", "a directory"},
		do: func(m *mounted) {
			m.write("etc/x", "mine")
			m.remove("etc/gone")
			m.write("etc/d/f", "mine")
			must(m, os.Symlink("x", m.path("etc/l")))
		},
		want: map[string]string{"etc/x": "mine", "etc/gone": "", "etc/d/f": "mine", "etc/l": "mine"},
	},
}

func (m *mounted) chmod(name string, mode os.FileMode) {
	m.Helper()
	must(m, os.Chmod(m.path(name), mode))
}

func (m *mounted) rename(from, to string) { m.Helper(); must(m, os.Rename(m.path(from), m.path(to))) }
func (m *mounted) remove(name string)     { m.Helper(); must(m, os.RemoveAll(m.path(name))) }
func (m *mounted) mkdir(name string)      { m.Helper(); must(m, os.Mkdir(m.path(name), 0o755)) }
func (m *mounted) write(name, content string) {
	m.Helper()
	must(m, os.WriteFile(m.path(name), []byte(content), 0o644))
}

// see returns what is at a path, in the form of change.want.
func (m *mounted) see(name string) string {
	entries, err := os.ReadDir(m.path(name))
	switch {
	case err == nil:
		names := make([]string, len(entries))
		for i, e := range entries {
			names[i] = e.Name()
		}
		return "/" + strings.Join(names, " ")
	case errors.Is(err, unix.ENOENT):
		return ""
	default:
		return m.read(name)
	}
}

func (m *mounted) check(what string, want map[string]string) {
	m.Helper()
	for name, content := range want {
		if got := m.see(name); got != content {
			m.Errorf("%s: %s is %.60q, want %.60q", what, name, got, content)
		}
	}
}

// view opens top-level directories of the union.
func (m *mounted) view(top string) (*os.File, error) { return Running(m.at)(top) }

func (n *node) scan() *Delta {
	n.Helper()
	d, err := Scan(n.Context(), n.upper(nil).File(), Limits{})
	must(n, err)
	return d
}

func (n *node) settleLive(m *mounted, p *Plan) {
	n.Helper()
	troubles, err := p.ActLive(n.Context(), Live{Upper: n.upper(nil), View: m.view})
	if err != nil || len(troubles) > 0 {
		n.Fatalf("settle: %v, %v", troubles, err)
	}
}

func (n *node) offline(hook durable.Hook) Offline {
	return Offline{Upper: n.upper(hook), Aside: n.open("aside", hook), Objects: n.store}
}

func (n *node) settleOffline(p *Plan) {
	n.Helper()
	troubles, err := p.ActOffline(n.Context(), n.offline(nil))
	if err != nil || len(troubles) > 0 {
		n.Fatalf("settle: %v, %v", troubles, err)
	}
}

// set returns a node on which the change was made, its images and the union.
func (c change) set(t *testing.T) (*node, image, image, *mounted) {
	n := newNode(t)
	from, to := n.image(c.from...), n.image(c.to...)
	m := n.mount(from)
	c.do(m)
	return n, from, to, m
}

// TestSettling makes changes over one image and looks at them over another, with the upper as it is, settled under the
// running union, and settled before a boot.
func TestSettling(t *testing.T) {
	for name, c := range changes {
		t.Run(name, func(t *testing.T) {
			t.Run("not at all", func(t *testing.T) {
				n, _, to, m := c.set(t)
				m.unmount()
				if c.wrong == "" {
					return
				}
				got := n.mount(to).see(c.wrong)
				if got == c.want[c.wrong] {
					t.Errorf("%s is right all the same: the kernel does without settling", c.wrong)
				}
				// Where the kernel checks digests, it knows that the content is another.
				if c.eio && n.level == mount.Enforced && !strings.Contains(got, unix.EIO.Error()) {
					t.Errorf("%s is %.60q, want EIO", c.wrong, got)
				}
				t.Logf("%s: %.60q", c.wrong, got)
			})
			t.Run("live", func(t *testing.T) {
				n, from, to, m := c.set(t)
				p := Settle(n.scan(), from.tree, to.tree, nil)
				c.checkSteps(n, p)
				n.settleLive(m, p)
				m.check("in the running union", c.overOld())
				m.unmount()
				n.mount(from).check("over the old image", c.overOld())
				n.mount(to).check("over the new image", c.want)
			})
			t.Run("before a boot", func(t *testing.T) {
				n, from, to, m := c.set(t)
				m.unmount()
				p := Settle(n.scan(), from.tree, to.tree, nil)
				c.checkSteps(n, p)
				n.settleOffline(p)
				n.mount(from).check("over the old image", c.overOld())
				n.mount(to).check("over the new image", c.want)
				if left := Settle(n.scan(), from.tree, to.tree, nil); len(left.Steps) > 0 {
					t.Errorf("settled, and yet %v is to be done", left.Steps)
				}
			})
		})
	}
}

// overOld is what must be there over the old image.
func (c change) overOld() map[string]string {
	want := maps.Clone(c.want)
	maps.Copy(want, c.old)
	return want
}

func (c change) checkSteps(n *node, p *Plan) {
	n.Helper()
	want := c.steps
	if c.whole && n.level == mount.Enforced {
		want = nil
	}
	var steps []string
	for _, s := range p.Steps {
		steps = append(steps, s.Do.String()+" "+s.Path)
	}
	if !slices.Equal(steps, want) || len(p.Unsettled) > 0 {
		n.Errorf("steps %q, want %q; unsettled %v", steps, want, p.Unsettled)
	}
}
