package apply

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/nodeconfig"
)

// box is a machine's file system in a directory, with one user "web" beside root.
type box struct {
	t    testing.TB
	root string
	uid  int
}

// newBox makes one in dir.
func newBox(t testing.TB, dir string) *box {
	t.Helper()
	b := &box{t: t, root: dir, uid: os.Geteuid()}
	if b.uid == 0 {
		b.uid = 12345
	}
	b.write("etc/passwd", fmt.Sprintf("root:x:%d:0:root:/root:/bin/sh\nweb:x:%d:%d:Web,,,:/home/web:/bin/sh\nnoone:x:%d:1::/nowhere:/bin/false\n", os.Geteuid(), b.uid, b.uid, b.uid), 0o644)
	for _, name := range []string{"root", "home/web"} {
		b.mkdir(name, 0o755)
	}
	b.own("home/web")
	return b
}

func (b *box) path(name string) string { return filepath.Join(b.root, name) }

func (b *box) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) mkdir(name string, perm os.FileMode) {
	b.t.Helper()
	b.must(os.MkdirAll(b.path(name), perm))
	b.must(os.Chmod(b.path(name), perm))
}

func (b *box) write(name, data string, perm os.FileMode) {
	b.t.Helper()
	b.must(os.MkdirAll(filepath.Dir(b.path(name)), 0o755))
	b.must(os.WriteFile(b.path(name), []byte(data), perm))
	b.must(os.Chmod(b.path(name), perm))
}

// own gives names to the user.
func (b *box) own(names ...string) {
	b.t.Helper()
	for _, name := range names {
		b.must(os.Lchown(b.path(name), b.uid, b.gid()))
	}
}

func (b *box) gid() int {
	if os.Geteuid() != 0 {
		return os.Getegid()
	}
	return b.uid
}

func (b *box) read(name string) string {
	b.t.Helper()
	data, err := os.ReadFile(b.path(name))
	b.must(err)
	return string(data)
}

func (b *box) stat(name string) unix.Stat_t {
	b.t.Helper()
	var st unix.Stat_t
	b.must(unix.Lstat(b.path(name), &st))
	return st
}

// open returns the machine; it is closed with the test.
func (b *box) open(o Options) *Machine {
	b.t.Helper()
	m, err := Open(b.root, o)
	b.must(err)
	b.t.Cleanup(func() { m.Close() })
	return m
}

// snapshot is all that can change of a tree.
func (b *box) snapshot() string {
	b.t.Helper()
	var s strings.Builder
	b.must(filepath.Walk(b.root, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		st := b.stat(strings.TrimPrefix(path, b.root))
		fmt.Fprintf(&s, "%s %d %o %d:%d %d %v %v\n", path, st.Ino, st.Mode, st.Uid, st.Gid, st.Size, st.Mtim, st.Ctim)
		return nil
	}))
	return s.String()
}

// key returns a valid key, always the same for a name.
func key(t testing.TB, name string) nodeconfig.Key {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	public, err := ssh.NewPublicKey(ed25519.NewKeyFromSeed(seed[:]).Public())
	if err != nil {
		t.Fatal(err)
	}
	k, err := nodeconfig.ParseKey(strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public))) + " " + name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func user(t testing.TB, name string, keys ...string) nodeconfig.User {
	t.Helper()
	u := nodeconfig.User{Name: name}
	for _, k := range keys {
		u.Keys = append(u.Keys, key(t, k))
	}
	return u
}

// block is what a file has of those keys.
func block(t testing.TB, keys ...string) string {
	t.Helper()
	var lines []string
	for _, k := range keys {
		lines = append(lines, key(t, k).String())
	}
	m, err := nodeconfig.Merge(nil, lines)
	if err != nil {
		t.Fatal(err)
	}
	return string(m.Data)
}

func parsed(file string) ([]nodeconfig.Host, error) {
	return nodeconfig.ParseHosts(nodeconfig.ParseHostsFile(file))
}

func hosts(t testing.TB, file string) []nodeconfig.Host {
	t.Helper()
	list, err := parsed(file)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestFindAccount(t *testing.T) {
	passwd := []byte("# x\n+nis\nroot:x:0:0:root:/root:/bin/sh\nweb:x:7:8::/home//web/:\nweb:x:0:0::/root:\nodd:x:-1:0::/:\nhigh:x:4294967295:0::/:\nbig:x:4294967294:1::/:\nshort:x:1:1\nempty:x:1:1:::\n")
	for name, want := range map[string]string{
		"root": "0 0 /root", "web": "7 8 /home/web", "odd": "", "high": "", "big": "4294967294 1 /", "short": "", "empty": "1 1 ", "+nis": "", "": "", "x": "", "we": "",
	} {
		a, ok := findAccount(passwd, name)
		if got := fmt.Sprintf("%d %d %s", a.uid, a.gid, a.home); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q, %v; want %q", name, got, ok, want)
		}
	}
}

func FuzzFindAccount(f *testing.F) {
	f.Add([]byte("root:x:0:0:root:/root:/bin/sh\n"), "root")
	f.Fuzz(func(t *testing.T, passwd []byte, name string) {
		if a, ok := findAccount(passwd, name); ok && (a.name != name || a.uid < 0 || a.gid < 0 || strings.ContainsRune(a.home, 0)) {
			t.Fatalf("%+v", a)
		}
	})
}

// fakeKernel remembers a host name.
type fakeKernel struct {
	name string
	sets int
}

func (k *fakeKernel) Hostname() (string, error) { return k.name, nil }

func (k *fakeKernel) SetHostname(name string) error {
	k.name = name
	k.sets++
	return nil
}

func TestHostname(t *testing.T) {
	b := newBox(t, t.TempDir())
	kernel := &fakeKernel{name: "initramfs"}
	m := b.open(Options{Kernel: kernel})
	change, err := m.Hostname("web-1")
	if err != nil || !change.Changed || len(change.Removed) != 0 || b.read("etc/hostname") != "web-1\n" || kernel.name != "web-1" || b.stat("etc/hostname").Mode&0o777 != 0o644 {
		t.Fatalf("%+v, %v, %q, %+v", change, err, b.read("etc/hostname"), kernel)
	}
	before := b.snapshot()
	if change, err := m.Hostname("web-1"); err != nil || change.Changed || b.snapshot() != before || kernel.sets != 1 {
		t.Errorf("again: %+v, %v, %d", change, err, kernel.sets)
	}
	kernel.name = "dhcp-7"
	if change, err := m.Hostname("web-1"); err != nil || !change.Changed || b.snapshot() != before || kernel.name != "web-1" {
		t.Errorf("the kernel's alone: %+v, %v, %+v", change, err, kernel)
	}
	b.write("etc/hostname", "# ours\nold\n", 0o600)
	before = b.snapshot()
	dry := b.open(Options{Kernel: kernel, DryRun: true})
	if change, err := dry.Hostname("web-2"); err != nil || !change.Changed || change.Removed[0] != "old" || b.snapshot() != before || kernel.name != "web-1" {
		t.Errorf("dry: %+v, %v", change, err)
	}
	if _, err := m.Hostname("web-2"); err != nil || b.read("etc/hostname") != "web-2\n" || b.stat("etc/hostname").Mode&0o777 != 0o600 {
		t.Errorf("%v", err)
	}
	b.must(os.Remove(b.path("etc/hostname")))
	b.must(os.Symlink("passwd", b.path("etc/hostname")))
	if _, err := m.Hostname("web-3"); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("a link: %v", err)
	}
}

// TestKernelHostname sets a host name for real, in a UTS namespace of the thread's own.
func TestKernelHostname(t *testing.T) {
	was, err := Kernel{}.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root has a UTS namespace of its own")
	}
	type result struct {
		name string
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // for good: the namespace ends with the thread
		var r result
		if r.err = unix.Unshare(unix.CLONE_NEWUTS); r.err == nil {
			if r.err = (Kernel{}).SetHostname("web-1.test"); r.err == nil {
				r.name, r.err = Kernel{}.Hostname()
			}
		}
		done <- r
	}()
	if r := <-done; r.err != nil || r.name != "web-1.test" {
		t.Errorf("%+v", r)
	}
	if now, err := (Kernel{}).Hostname(); err != nil || now != was {
		t.Errorf("the machine is called %q now, %v", now, err)
	}
}

func TestHosts(t *testing.T) {
	b := newBox(t, t.TempDir())
	m := b.open(Options{})
	own := "127.0.0.1\tlocalhost\r\n# mine"
	b.write("etc/hosts", own, 0o664)
	change, err := m.Hosts(hosts(t, "10.0.0.5 db.internal db\n"))
	if got := b.read("etc/hosts"); err != nil || !strings.HasPrefix(got, own+"\n# BEGIN powernode") || !strings.Contains(got, "\n10.0.0.5 db.internal db\n# END powernode\n") || b.stat("etc/hosts").Mode&0o777 != 0o664 {
		t.Fatalf("%+v, %v, %q", change, err, got)
	}
	before := b.snapshot()
	if change, err := m.Hosts(hosts(t, "10.0.0.5 DB.internal db\n")); err != nil || change.Changed || b.snapshot() != before {
		t.Errorf("again: %+v, %v", change, err)
	}
	dry := b.open(Options{DryRun: true})
	if change, err := dry.Hosts(nil); err != nil || !change.Changed || len(change.Removed) != 1 || b.snapshot() != before {
		t.Errorf("dry: %+v, %v", change, err)
	}
	if change, err := m.Hosts([]nodeconfig.Host{}); err != nil || !change.Changed || b.read("etc/hosts") != own+"\n" {
		t.Errorf("none: %+v, %v, %q", change, err, b.read("etc/hosts"))
	}
	b.write("etc/hosts", "# BEGIN powernode\n", 0o644)
	if _, err := m.Hosts(hosts(t, "10.0.0.5 db\n")); err == nil || b.read("etc/hosts") != "# BEGIN powernode\n" {
		t.Errorf("half a block: %v", err)
	}
	b.write("etc/hosts", strings.Repeat("#", maxHostsEtc+1), 0o644)
	if _, err := m.Hosts(hosts(t, "10.0.0.5 db\n")); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("huge: %v", err)
	}
}

func TestEtcMayBeALinkWithinTheRoot(t *testing.T) {
	b := newBox(t, t.TempDir())
	b.must(os.Rename(b.path("etc"), b.path("real")))
	b.must(os.Symlink("/real", b.path("etc")))
	m := b.open(Options{})
	if _, err := m.Hosts(hosts(t, "10.0.0.5 db\n")); err != nil || !strings.Contains(b.read("real/hosts"), "10.0.0.5 db") {
		t.Error(err)
	}
}
