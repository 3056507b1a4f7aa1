package live

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/powernode/powernode-agent/internal/difference"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/rootfs"
)

// TestMixture stops a change in the middle: what is mounted is neither, and said so.
func TestMixture(t *testing.T) {
	n := newNode(t)
	a, b := n.files(versionFiles("a")), n.files(versionFiles("b"))
	n.boot(a, func(s *rootfs.Spec) { s.Etc = rootfs.Persistent })
	whole := func(wanted Side) string {
		t.Helper()
		s, err := Mounted(n.root)
		must(t, err)
		digest, ok, err := Whole(s, n.root, wanted.RootDigest, n.read)
		must(t, err)
		switch {
		case !ok:
			return "mixture"
		case digest == a.RootDigest:
			return "a"
		default:
			return "b"
		}
	}
	if got := whole(a); got != "a" {
		t.Errorf("booted: %s", got)
	}
	spec := n.spec(a, b)
	half := spec
	half.Changes = nil
	for _, c := range spec.Changes {
		if c.Name == "etc" {
			half.Changes = append(half.Changes, c)
		}
	}
	_, err := Swap(context.Background(), half)
	must(t, err)
	for _, wanted := range []Side{a, b} {
		if got := whole(wanted); got != "mixture" {
			t.Errorf("half changed, wanted %d: %s", wanted.Generation, got)
		}
	}
	s, err := Mounted(n.root)
	must(t, err)
	i := slices.IndexFunc(s.Directories, func(d TopLevel) bool { return d.Name == "etc" })
	if i < 0 || s.Directories[i].RootDigest != b.RootDigest || !s.Directories[i].EtcLayer || s.Directories[i].Upper == "" {
		t.Errorf("directories %+v", s.Directories)
	}
	// A second change must not begin before that one is finished.
	if _, err := Swap(context.Background(), n.spec(a, b)); err == nil || fault.HintOf(err) == "" {
		t.Errorf("a second change: %v", err)
	}
	_, err = Undo(context.Background(), n.place())
	must(t, err)
	if got := whole(a); got != "a" {
		t.Errorf("undone: %s", got)
	}
	n.swap(a, b)
	if got := whole(b); got != "b" {
		t.Errorf("changed: %s", got)
	}
	if _, err := Mounted(filepath.Dir(n.root)); fault.KindOf(err) != fault.Refuse {
		t.Errorf("of something that is no root: %v", err)
	}
}

// TestSoftReboot has a journal that outlived the root it is about.
func TestSoftReboot(t *testing.T) {
	n := newNode(t)
	a, b := n.files(versionFiles("a")), n.files(versionFiles("b"))
	n.boot(a, nil)
	_, err := Swap(context.Background(), n.spec(a, b))
	must(t, err)
	n.shutDown()
	n.boot(b, nil)
	if _, ok, err := Recover(context.Background(), n.place(), a.Generation); ok || err != nil {
		t.Errorf("recovered: %v, %v", ok, err)
	}
	if Recoverable(n.run) {
		t.Error("the journal is still there")
	}
	n.whole(b)
	if _, ok, err := Recover(context.Background(), n.place(), a.Generation); ok || err != nil {
		t.Errorf("without a journal: %v, %v", ok, err)
	}
}

// TestUpperUnreachable has an upper that can't be reached, and one that is another.
func TestUpperUnreachable(t *testing.T) {
	n := newNode(t)
	a, b := n.files(versionFiles("a")), n.files(versionFiles("b"))
	n.boot(a, nil)
	m, err := mount.New("tmpfs", 0)
	must(t, err)
	must(t, m.Attach(filepath.Join(n.run, "upper")))
	m.Close()
	must(t, os.Mkdir(filepath.Join(n.run, "upper/upper"), 0o755))
	report, err := Check(n.spec(a, b))
	must(t, err)
	if len(report.Obstacles) != 1 || report.Obstacles[0].Hint == "" {
		t.Errorf("obstacles %+v", report.Obstacles)
	}
	if _, err := Swap(context.Background(), n.spec(a, b)); fault.KindOf(err) != fault.Refuse {
		t.Errorf("swap: %v", err)
	}
	n.whole(a)
}

func TestChanges(t *testing.T) {
	n := newNode(t)
	from := n.build(map[string]string{"usr/x": "1", "bin": "-> usr/bin", "l": "-> a", "run/x": "1", "f": "1", "d/x": "1", "gone/x": "1"})
	to := n.build(map[string]string{"usr/x": "2", "bin": "-> usr/bin", "l": "-> b", "run/x": "2", "f": "2", "d": "-> usr", "come/x": "1"})
	to.Child("bin").Mtime.Sec = 7
	kinds := make(map[string][2]Kind)
	for _, c := range Changes(difference.Compare(from, to).Top) {
		kinds[c.Name] = [2]Kind{c.From.Kind, c.To.Kind}
		if (c.possible() == "") != (c.Name != "f" && c.Name != "d") {
			t.Errorf("%s: %q", c.Name, c.possible())
		}
		if err := c.validate(); err != nil {
			t.Error(err)
		}
		if back := c.reverse(); back.From.Kind != c.To.Kind || back.To.Kind != c.From.Kind {
			t.Errorf("%s: the reverse is %+v", c.Name, back)
		}
	}
	want := map[string][2]Kind{
		"usr": {Directory, Directory}, "l": {Link, Link}, "f": {Other, Other}, "d": {Directory, Link}, "gone": {Directory, Absent}, "come": {Absent, Directory},
	}
	if len(kinds) != len(want) {
		t.Errorf("changes %v", kinds)
	}
	for name, k := range want {
		if kinds[name] != k {
			t.Errorf("%s: %v, want %v", name, kinds[name], k)
		}
	}
	for _, name := range []string{"", ".", "..", "a/b", "a\x00"} {
		if err := (Change{Name: name}).validate(); err == nil {
			t.Errorf("%q is a name", name)
		}
	}
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{"version":1,"phase":"swapping","from":{"generation":1,"root_digest":""},"to":{"generation":2,"root_digest":""},"changes":[{"name":"usr","from":{"kind":"directory"},"to":{"kind":"directory"}}]}`))
	f.Add([]byte(`{"version":1,"changes":[{"name":"../x"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, JournalName), data, 0o600))
		j, err := ReadJournal(dir)
		if err != nil {
			return
		}
		for _, c := range j.Changes {
			if filepath.Base(c.Name) != c.Name || c.Name == "." || c.Name == ".." {
				t.Errorf("the name %q", c.Name)
			}
		}
	})
}

func TestUnitOf(t *testing.T) {
	for text, want := range map[string]string{
		"0::/system.slice/ssh.service\n": "ssh.service",
		"12:pids:/x.service\n1:name=systemd:/user.slice/user-0.slice/session-1.scope\n0::/\n": "session-1.scope",
		"0::/init.scope\n": "init.scope",
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/foo.service\n":  "user@1000.service",
		"0::/user.slice/user-1000.slice/user@1000.service/init.scope\n":             "user@1000.service",
		"0::/system.slice/docker.service/x/init.scope/y.service\n":                  "docker.service",
		"0::/machine.slice/systemd-nspawn@c.service/payload/system.slice/x.service": "systemd-nspawn@c.service",
		"0::/system.slice/_cpu.service\n":                                           "cpu.service",
		"0::/lxc/c/system.slice/x.service\n":                                        "",
		"":                                                                          "",
		"nonsense\n0::":                                                             "",
	} {
		if got := unitOf(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
