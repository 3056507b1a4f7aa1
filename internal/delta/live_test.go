package delta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/oracle"
)

// TestOriginsOfAnotherImage shows what the marks of origins do over another image, and that it is over without them.
func TestOriginsOfAnotherImage(t *testing.T) {
	n := newNode(t)
	const files = 100
	var a, b []string
	want := make(map[string]string)
	for i := range files {
		f, g := fmt.Sprintf("d/f%03d", i), fmt.Sprintf("d/g%03d", i)
		a, b = append(a, f, big("a"+f)), append(b, g, big("b"+g))
		want[f], want[g] = big("a"+f)+"local", big("b"+g)
	}
	from, to := n.image(a...), n.image(b...)
	m := n.mount(from)
	for i := range files {
		f, err := os.OpenFile(m.path(fmt.Sprintf("d/f%03d", i)), os.O_WRONLY|os.O_APPEND, 0)
		must(t, err)
		_, err = f.WriteString("local")
		must(t, errors.Join(err, f.Close()))
	}
	m.unmount()
	over := n.mount(to)
	wrong := 0
	for i := range files {
		for _, name := range []string{fmt.Sprintf("d/f%03d", i), fmt.Sprintf("d/g%03d", i)} {
			if over.read(name) != want[name] {
				wrong++
			}
		}
	}
	over.unmount()
	if wrong == 0 {
		t.Error("this kernel tells the files of two images apart: origins needn't be forgotten")
	}
	t.Logf("with origins, %d of %d files are wrong", wrong, 2*files)
	forgot, err := ForgetOrigins(t.Context(), n.upper(nil))
	if err != nil || forgot != files {
		t.Errorf("forgot %d origins, %v; want %d", forgot, err, files)
	}
	n.mount(to).check("without origins", want)
}

// TestSettlingARunningProgram settles files that can't be opened for writing.
func TestSettlingARunningProgram(t *testing.T) {
	n := newNode(t)
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		oracle.Missing(t, "busybox isn't installed; run scripts/setup")
	}
	fixed := big("fixed")
	from := n.image("bin/busybox", string(busybox), "bin/dir/busybox", string(busybox), "etc/fixed", fixed)
	to := n.image("bin/busybox", string(busybox)+"new", "bin/dir/busybox", string(busybox)+"new", "etc/fixed", fixed+"new")
	m := n.mount(from)
	capability := []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00") // cap_net_bind_service=ep
	must(t, unix.Setxattr(m.path("bin/busybox"), capabilityName, capability, 0))
	must(t, os.Chmod(m.path("etc/fixed"), 0o400))
	immutable := setFlags(m.path("etc/fixed"), 0x10) == nil // FS_IMMUTABLE_FL
	m.rename("bin/dir", "bin/other")
	for _, name := range []string{"bin/busybox", "bin/other/busybox"} {
		cmd := exec.Command(m.path(name), "sleep", "600")
		must(t, cmd.Start())
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
	}
	if _, err := os.OpenFile(m.path("bin/busybox"), os.O_WRONLY, 0); !errors.Is(err, unix.ETXTBSY) {
		t.Fatalf("writing a running program: %v", err)
	}
	n.settleLive(m, Settle(n.scan(), from.tree, to.tree, nil))
	over := n.mount(to)
	over.check("over the new image", map[string]string{
		"bin/busybox": string(busybox), "bin/other/busybox": string(busybox), "etc/fixed": fixed, "bin/dir": "",
	})
	value := make([]byte, 64)
	k, err := unix.Getxattr(over.path("bin/busybox"), capabilityName, value)
	if err != nil || !bytes.Equal(value[:k], capability) {
		t.Errorf("the capability is %x, %v", value[:max(k, 0)], err)
	}
	if immutable {
		if err := os.WriteFile(over.path("etc/fixed"), nil, 0o600); err == nil {
			t.Error("what was immutable isn't any more")
		}
		must(t, setFlags(over.path("etc/fixed"), 0))
	}
}

func setFlags(path string, flags int) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
}

// TestWritersWhileSettling writes to metacopies and into a renamed directory while they are settled: nothing is lost.
func TestWritersWhileSettling(t *testing.T) {
	n := newNode(t)
	var a, b []string
	const files = 40
	for i := range files {
		name := fmt.Sprintf("opt/a/f%02d", i)
		a, b = append(a, name, big("old")+"\n"), append(b, name, big("new")+"\n")
	}
	from, to := n.image(append(a, "etc/x", big("x")+"\n")...), n.image(append(b, "etc/x", big("y")+"\n")...)
	m := n.mount(from)
	m.chmod("etc/x", 0o600)
	m.rename("opt/a", "opt/b")
	paths := []string{"etc/x"}
	for i := range files {
		paths = append(paths, fmt.Sprintf("opt/b/f%02d", i))
	}
	ctx, stop := context.WithCancel(t.Context())
	written := make([]int, len(paths))
	var writers sync.WaitGroup
	for w := range 2 {
		writers.Go(func() {
			for ctx.Err() == nil {
				for i := w; i < len(paths); i += 2 {
					f, err := os.OpenFile(m.path(paths[i]), os.O_WRONLY|os.O_APPEND, 0)
					if err == nil {
						_, err = f.WriteString("line\n")
						err = errors.Join(err, f.Close())
					}
					if err != nil {
						t.Errorf("write to %s: %v", paths[i], err)
						return
					}
					written[i]++
				}
			}
		})
	}
	troubles, err := Live{Upper: n.upper(nil), View: m.view}.Settle(t.Context(), from.tree, to.tree, nil, nil)
	if err != nil || len(troubles) > 0 {
		t.Errorf("settle: %v, %v", troubles, err)
	}
	stop()
	writers.Wait()
	over := n.mount(to)
	for i, path := range paths {
		if got := strings.Count(over.read(path), "line\n"); got != written[i] {
			t.Errorf("%s has %d of %d lines", path, got, written[i])
		}
		if strings.HasPrefix(over.read(path), big("new")) {
			t.Errorf("%s has the new image's content", path)
		}
	}
}

// TestAttributesStay looks at what a file has beside its content, after it was settled either way.
func TestAttributesStay(t *testing.T) {
	for _, how := range []string{"live", "before a boot"} {
		t.Run(how, func(t *testing.T) {
			n := newNode(t)
			from := n.image("etc/one", big("one"), "etc/two", big("two"), "opt/a/f", big("f"), "opt/a/l", "-> f", "opt/a/d/", "")
			to := n.image("etc/one", big("eins"), "etc/two", big("zwei"), "opt/a/f", big("g"), "opt/a/l", "-> g", "opt/a/d/", "")
			m := n.mount(from)
			for i, name := range []string{"etc/one", "etc/two", "opt/a/f"} {
				must(t, os.Chown(m.path(name), 1000+i, 2000+i))
				must(t, unix.Chmod(m.path(name), 0o4750))
				must(t, unix.Setxattr(m.path(name), "trusted.mine", []byte(name), 0))
				must(t, unix.Setxattr(m.path(name), "security.capability", []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0))
				must(t, unix.UtimesNanoAt(unix.AT_FDCWD, m.path(name), []unix.Timespec{{Sec: 11}, {Sec: int64(22 + i), Nsec: 5}}, 0))
			}
			must(t, os.Link(m.path("etc/two"), m.path("etc/three")))
			m.rename("opt/a", "opt/b")
			// The kernel's copy of the content sets the time.
			times := how != "live"
			before := m.attributes(times, "etc/one", "etc/two", "etc/three", "opt/b/f", "opt/b/l", "opt/b/d")
			p := Settle(n.scan(), from.tree, to.tree, nil)
			if how == "live" {
				n.settleLive(m, p)
				m.unmount()
			} else {
				m.unmount()
				n.settleOffline(p)
			}
			over := n.mount(to)
			after := over.attributes(times, "etc/one", "etc/two", "etc/three", "opt/b/f", "opt/b/l", "opt/b/d")
			for i := range before {
				if before[i] != after[i] {
					t.Errorf("%s\nbecame\n%s", before[i], after[i])
				}
			}
			must(t, os.WriteFile(over.path("etc/three"), []byte("written"), 0o600))
			over.check("a hard link", map[string]string{"etc/two": "written"})
		})
	}
}

// attributes says what files have beside their content.
func (m *mounted) attributes(times bool, names ...string) []string {
	m.Helper()
	said := make([]string, 0, len(names))
	for _, name := range names {
		var s unix.Stat_t
		must(m, unix.Lstat(m.path(name), &s))
		text := fmt.Sprintf("%s: %o %d:%d", name, s.Mode, s.Uid, s.Gid)
		if s.Mode&unix.S_IFMT != unix.S_IFDIR {
			text += fmt.Sprintf(" %d bytes", s.Size)
		}
		if times {
			text += fmt.Sprintf(" %d.%d", s.Mtim.Sec, s.Mtim.Nsec)
		}
		for _, x := range []string{"trusted.mine", capabilityName} {
			value := make([]byte, 64)
			if k, err := unix.Lgetxattr(m.path(name), x, value); err == nil {
				text += fmt.Sprintf(" %s=%x", x, value[:k])
			}
		}
		said = append(said, text)
	}
	return said
}

// TestTroubles settles what can't be: it is said which path and why, and the rest is done.
func TestTroubles(t *testing.T) {
	n := newNode(t)
	from := n.image("etc/x", big("x"), "etc/y", big("y"), "opt/a/f", big("f"))
	to := n.image("etc/x", big("new"), "etc/y", big("new"), "opt/a/f", big("new"))
	m := n.mount(from)
	m.chmod("etc/x", 0o600)
	m.chmod("etc/y", 0o600)
	m.rename("opt/a", "opt/b")
	p := Settle(n.scan(), from.tree, to.tree, nil)
	if p.Files != 3 || p.Bytes != uint64(len(big("x"))*3) {
		t.Errorf("%d files of %d bytes are to be copied", p.Files, p.Bytes)
	}
	tmpfs := m.path("opt/b")
	must(t, unix.Mount("tmpfs", tmpfs, "tmpfs", 0, ""))
	t.Cleanup(func() { _ = unix.Unmount(tmpfs, unix.MNT_DETACH) })
	through := func(top string) (*os.File, error) { return os.Open(m.path(top)) }
	troubles, err := p.ActLive(t.Context(), Live{Upper: n.upper(nil), View: through})
	if err != nil || len(troubles) != 1 || troubles[0].Path != "/opt/b" || !strings.Contains(troubles[0].Why, "mounted") {
		t.Errorf("%v, %v", troubles, err)
	}
	if left := Settle(n.scan(), from.tree, to.tree, nil); len(left.Steps) != 1 || left.Steps[0].Path != "/opt/b" {
		t.Errorf("left to be done: %v", left.Steps)
	}
	must(t, unix.Unmount(tmpfs, unix.MNT_DETACH))
	m.unmount()

	object := from.tree.Lookup("opt/a/f").Digest
	must(t, n.store.RemoveObject(object))
	left := Settle(n.scan(), from.tree, to.tree, nil)
	troubles, err = left.ActOffline(t.Context(), n.offline(nil))
	if err != nil || len(troubles) != 1 || !strings.Contains(troubles[0].Why, "object store") {
		t.Errorf("without the object: %v, %v", troubles, err)
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if _, err := left.ActOffline(stopped, n.offline(nil)); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
	left.Unsettled = []Trouble{{"/x", "why"}}
	if troubles, err := left.ActLive(t.Context(), Live{}); err != nil || len(troubles) != 1 {
		t.Errorf("a plan that can't be carried out: %v, %v", troubles, err)
	}
}

// TestSettlingAgain has a user change more while the first changes are settled.
func TestSettlingAgain(t *testing.T) {
	n := newNode(t)
	a := []string{"etc/x", big("x"), "etc/y", big("y"), "opt/z", big("z")}
	b := []string{"etc/x", big("new"), "etc/y", big("new"), "opt/z", big("new")}
	for i := range settlePasses {
		a, b = append(a, fmt.Sprintf("usr/f%d", i), big("f")), append(b, fmt.Sprintf("usr/f%d", i), big("new"))
	}
	from, to := n.image(a...), n.image(b...)
	m := n.mount(from)
	m.chmod("etc/x", 0o600)
	m.chmod("opt/z", 0o600)
	changed := false
	hook := func(op string) error {
		if op == "settle:syncfs" && !changed {
			changed = true
			m.chmod("etc/y", 0o600)
		}
		return nil
	}
	live := Live{Upper: n.upper(hook), View: m.view}
	troubles, err := live.Settle(t.Context(), from.tree, to.tree, []string{"opt"}, nil)
	if err != nil || len(troubles) > 0 {
		t.Errorf("settle: %v, %v", troubles, err)
	}
	left := Settle(n.scan(), from.tree, to.tree, nil).Steps
	if len(left) != 1 || left[0].Path != "/opt/z" {
		t.Errorf("left to be done: %v; want what is covered", left)
	}
	next := 0
	again := Live{Upper: n.upper(func(op string) error {
		if op == "settle:syncfs" {
			m.chmod(fmt.Sprintf("usr/f%d", next), 0o600)
			next++
		}
		return nil
	}), View: m.view}
	if troubles, err := again.Settle(t.Context(), from.tree, to.tree, nil, nil); err != nil || len(troubles) == 0 {
		t.Errorf("changed again and again: %v, %v", troubles, err)
	}
}

// TestTidy puts right what copied-up directories show after the image beneath them is another.
func TestTidy(t *testing.T) {
	n := newNode(t)
	base := n.TempDir()
	put(t, base+"/etc/d/f", big("f"))
	put(t, base+"/opt/m/sub/g", "g")
	put(t, base+"/opt/k/h", "h")
	put(t, base+"/opt/z", "z")
	put(t, base+"/etc/a/f", "f")
	put(t, base+"/etc/mine/f", "f")
	for _, dir := range []string{"a", "mine"} {
		must(t, errors.Join(unix.Setxattr(base+"/etc/"+dir, "trusted.old", []byte("1"), 0), unix.Setxattr(base+"/etc/"+dir, "trusted.both", []byte("1"), 0)))
	}
	from := n.imageOf(base)
	for _, dir := range []string{"a", "mine"} {
		must(t, errors.Join(unix.Removexattr(base+"/etc/"+dir, "trusted.old"), unix.Setxattr(base+"/etc/"+dir, "trusted.both", []byte("2"), 0),
			unix.Setxattr(base+"/etc/"+dir, "trusted.new", []byte("2"), 0)))
	}
	must(t, os.Chown(base+"/etc/d", 5, 6))
	must(t, unix.Chmod(base+"/etc/d", 0o2710))
	must(t, errors.Join(os.RemoveAll(base+"/opt/m"), os.RemoveAll(base+"/opt/k")))
	to := n.imageOf(base)
	m := n.mount(from)
	m.chmod("etc/d/f", 0o600)
	m.write("opt/m/sub/mine", "mine")
	m.remove("opt/m/sub/mine")
	m.remove("opt/k/h")
	m.write("etc/a/f", "mine")
	m.write("etc/mine/f", "mine")
	must(t, unix.Setxattr(m.path("etc/mine"), "trusted.mine", []byte("3"), 0))
	left := Leftovers(n.scan(), from.tree, to.tree)
	n.settleLive(m, Settle(n.scan(), from.tree, to.tree, nil))
	m.unmount()
	over := n.mount(to)
	troubles, err := Tidy(t.Context(), over.view, left)
	if err != nil || len(troubles) > 0 {
		t.Errorf("%v, %v", troubles, err)
	}
	over.check("tidied", map[string]string{"opt": "/k z", "opt/k": "/", "etc/d/f": big("f")})
	if got := over.attributes(false, "etc/d")[0]; got != "etc/d: 42710 5:6" {
		t.Errorf("a directory that the new image gives another mode is %s", got)
	}
	for _, x := range []struct{ dir, name, want string }{
		{"a", "trusted.old", ""},
		{"a", "trusted.both", "2"},
		{"a", "trusted.new", "2"},
		{"mine", "trusted.old", "1"},
		{"mine", "trusted.both", "1"},
		{"mine", "trusted.new", ""},
		{"mine", "trusted.mine", "3"},
	} {
		value := make([]byte, 10)
		size, err := unix.Getxattr(over.path("etc/"+x.dir), x.name, value)
		if errors.Is(err, unix.ENODATA) {
			size, err = 0, nil
		}
		if err != nil || string(value[:size]) != x.want {
			t.Errorf("etc/%s has %s %q, %v; want %q", x.dir, x.name, value[:size], err, x.want)
		}
	}
	if left := Leftovers(n.scan(), to.tree, to.tree); len(left) != 0 {
		t.Errorf("left after that: %v", left)
	}
}

// TestRunningView settles what lies in a directory that something else is mounted over, and takes the union of a directory of its
// own for what is in that.
func TestRunningView(t *testing.T) {
	n := newNode(t)
	from := n.image("etc/x", big("x"), "opt/y", big("y"))
	to := n.image("etc/x", big("new"), "opt/y", big("new"))
	m := n.mount(from)
	m.chmod("etc/x", 0o600)
	m.chmod("opt/y", 0o600)
	other := n.mount(from)
	opt, err := os.Open(other.path("opt"))
	must(t, err)
	defer opt.Close()
	c, err := mount.Clone(opt, false)
	must(t, err)
	must(t, errors.Join(c.Attach(m.path("opt")), c.Close()))
	must(t, unix.Mount("tmpfs", m.path("etc"), "tmpfs", 0, ""))
	m.write("etc/x", "another's")
	t.Cleanup(func() {
		_ = unix.Unmount(m.path("etc"), unix.MNT_DETACH)
		_ = unix.Unmount(m.path("opt"), unix.MNT_DETACH)
	})
	n.settleLive(m, Settle(n.scan(), from.tree, to.tree, nil))
	m.check("what is mounted over it", map[string]string{"etc/x": "another's"})
	n.mount(to).check("over the new image", map[string]string{"etc/x": big("x"), "opt/y": big("y")})
	if _, err := Running(m.at)("none"); err == nil {
		t.Error("opened a directory that isn't there")
	}
}

// TestMetacopiesCarryTheDigest reads the digest that the kernel puts into a metacopy's mark where it checks.
func TestMetacopiesCarryTheDigest(t *testing.T) {
	n := newNode(t)
	from := n.image("etc/x", big("x"))
	m := n.mount(from)
	m.chmod("etc/x", 0o600)
	e, ok := n.scan().Entry("/etc/x")
	want := from.tree.Lookup("etc/x").Digest
	if n.level != mount.Enforced {
		want = fsverity.Digest{}
	}
	if !ok || e.Kind != Metacopy || e.Digest != want {
		t.Errorf("%v: digest %s, want %s", e, e.Digest, want)
	}
	// One that the image at hand doesn't know is found by its digest.
	e.Digest = from.tree.Lookup("etc/x").Digest
	m.unmount()
	p := Settle(deltaOf(Entry{Path: "/etc", Kind: Directory}, e), dirTree("etc/", ""), dirTree("etc/x", "new"), nil)
	n.settleOffline(p)
	n.mount(n.image("etc/x", "new")).check("found by its digest", map[string]string{"etc/x": big("x")})
}
