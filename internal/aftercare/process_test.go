package aftercare

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/difference"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/mount/mounttest"
	"github.com/powernode/powernode-agent/internal/oracle"
	"github.com/powernode/powernode-agent/internal/tree"
)

// play has this program be another one: it opens the files that it is given, says so, and waits for the end of its input.
const play = "AFTERCARE_TEST_PLAY"

func TestMain(m *testing.M) {
	if os.Getenv(play) != "" {
		var open []*os.File
		for _, name := range os.Args[1:] {
			f, err := os.Open(name)
			if err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			open = append(open, f)
		}
		fmt.Println("ready")
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(len(open) - len(os.Args) + 1)
	}
	os.Exit(mounttest.Main(m))
}

// union is a root of ours at a directory.
type union struct {
	t    *testing.T
	root string
	work int
	dir  string
}

func newUnion(t *testing.T, files map[string]string) *union {
	t.Helper()
	mounttest.NeedMounts(t)
	u := &union{t: t, dir: t.TempDir()}
	u.root = filepath.Join(u.dir, "root")
	must(t, os.MkdirAll(u.root, 0o755), os.MkdirAll(filepath.Join(u.dir, "upper"), 0o755))
	m := u.mount(files)
	defer m.Close()
	must(t, m.Attach(u.root))
	t.Cleanup(func() {
		for unix.Unmount(filepath.Join(u.root, "usr"), unix.MNT_DETACH) == nil {
		}
		_ = unix.Unmount(u.root, unix.MNT_DETACH)
	})
	return u
}

// mount makes a union of files over the upper.
func (u *union) mount(files map[string]string) *mount.Mount {
	u.t.Helper()
	u.work++
	dir, work := filepath.Join(u.dir, fmt.Sprint(u.work)), filepath.Join(u.dir, fmt.Sprint("work", u.work))
	must(u.t, os.Mkdir(dir, 0o755), os.Mkdir(work, 0o755))
	image := mounttest.Seal(u.t, oracle.Path(u.t, "mkcomposefs"), dir, files)
	open := func(path string) *os.File {
		f, err := os.Open(path)
		must(u.t, err)
		u.t.Cleanup(func() { f.Close() })
		return f
	}
	m, err := mount.Union(mount.UnionSpec{
		Image: open(image.Path), Digest: image.Digest, Objects: open(image.Objects),
		Upper: open(filepath.Join(u.dir, "upper")), Work: open(work), Level: mount.Checked,
	})
	must(u.t, err)
	return m
}

// swap has /usr show other files, as a live change does: covering the first time, and taking the mount out of the tree after
// that.
func (u *union) swap(files map[string]string) {
	u.t.Helper()
	m := u.mount(files)
	defer m.Close()
	stage := filepath.Join(u.dir, "stage")
	must(u.t, os.MkdirAll(stage, 0o755), m.Attach(stage))
	usr, err := os.Open(filepath.Join(stage, "usr"))
	must(u.t, err)
	defer usr.Close()
	sub, err := mount.Clone(usr, false)
	must(u.t, err)
	defer sub.Close()
	at := filepath.Join(u.root, "usr")
	_ = unix.Unmount(at, unix.MNT_DETACH) // the first time there is none
	must(u.t, sub.Attach(at), unix.Unmount(stage, unix.MNT_DETACH))
}

func (u *union) scan() Scan {
	u.t.Helper()
	v, err := ReadView(u.root)
	must(u.t, err)
	return Scan{View: v}
}

// run starts a program of the union, which opens files of it, and returns its number.
func (u *union) run(program string, change func(*exec.Cmd), open ...string) int {
	u.t.Helper()
	for i := range open {
		open[i] = filepath.Join(u.root, open[i])
	}
	cmd := exec.CommandContext(context.Background(), filepath.Join(u.root, program), open...)
	cmd.Env = append(os.Environ(), play+"=1")
	if change != nil {
		change(cmd)
	}
	in, err := cmd.StdinPipe()
	must(u.t, err)
	out, err := cmd.StdoutPipe()
	must(u.t, err, cmd.Start())
	u.t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		u.t.Fatalf("%v, %q", err, line)
	}
	return cmd.Process.Pid
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// self is this very program, which can be run from a union.
func self(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	return string(text)
}

// usesOf are what a scan found of some processes, as "path how".
func usesOf(t testing.TB, found []Process, err error, pids ...int) [][]string {
	t.Helper()
	must(t, err)
	all := make([][]string, len(pids))
	for i, pid := range pids {
		for _, p := range found {
			if p.PID != pid {
				continue
			}
			for _, use := range p.Uses {
				all[i] = append(all[i], use.Path+" "+use.How)
			}
		}
	}
	return all
}

func TestProcessesWithOldFiles(t *testing.T) {
	program, long := self(t), strings.Repeat("long ", 100)
	a := map[string]string{"usr/bin/web": program, "usr/data": long + "1", "usr/same": long, "usr/gone": long, "etc/conf": "1"}
	b := map[string]string{"usr/bin/web": program + "2", "usr/data": long + "2", "usr/same": long, "usr/new": "1", "etc/conf": "1"}
	c := map[string]string{"usr/bin/web": program + "3", "usr/data": long + "2", "usr/same": long, "etc/conf": "1"}
	u := newUnion(t, a)
	user := u.run("usr/bin/web", nil, "usr/data", "usr/same", "usr/gone", "etc/conf")
	inside := u.run("usr/bin/web", func(cmd *exec.Cmd) { cmd.Dir = filepath.Join(u.root, "usr") })
	outside := u.run("usr/bin/web", func(cmd *exec.Cmd) { cmd.Path = "/proc/self/exe" })

	from, to := treeOf(a), treeOf(b)
	d := difference.Compare(from, to)
	found, err := u.scan().Using(t.Context(), d, nil)
	want := [][]string{
		{"/usr/bin/web program", "/usr/data open", "/usr/gone open"},
		{"/usr/bin/web program", "/usr directory"},
		nil,
	}
	if diff := cmp.Diff(want, usesOf(t, found, err, user, inside, outside)); diff != "" {
		t.Errorf("before: %s", diff)
	}
	found, err = u.scan().Using(t.Context(), d, func(path string) bool { return path == "/usr/data" || path == "/usr/bin/web" })
	if diff := cmp.Diff([][]string{{"/usr/gone open"}}, usesOf(t, found, err, user)); diff != "" {
		t.Errorf("what local changes hide: %s", diff)
	}
	found, err = u.scan().Stale(t.Context())
	if diff := cmp.Diff([][]string{nil, nil, nil}, usesOf(t, found, err, user, inside, outside)); diff != "" {
		t.Errorf("nothing happened: %s", diff)
	}

	u.swap(b)
	found, err = u.scan().Stale(t.Context())
	if diff := cmp.Diff(want, usesOf(t, found, err, user, inside, outside)); diff != "" {
		t.Errorf("covered: %s", diff)
	}
	next := u.run("usr/bin/web", nil, "usr/data", "usr/new")
	found, err = u.scan().Stale(t.Context())
	if diff := cmp.Diff([][]string{nil}, usesOf(t, found, err, next)); diff != "" {
		t.Errorf("what began since: %s", diff)
	}

	u.swap(c)
	found, err = u.scan().Stale(t.Context())
	want = append(want, []string{"/usr/bin/web program", "/new open"})
	if diff := cmp.Diff(want, usesOf(t, found, err, user, inside, outside, next)); diff != "" {
		t.Errorf("taken out: %s", diff)
	}
}

func treeOf(names map[string]string) *tree.Node {
	all := files{}
	for name, content := range names {
		all["/"+name] = content
	}
	return all.tree()
}

func TestUnitOfCgroup(t *testing.T) {
	for text, want := range map[string]string{
		"0::/system.slice/nginx.service\n": "nginx.service",
		"12:pids:/x\n1:name=systemd:/system.slice/system-getty.slice/getty@tty1.service\n0::/\n": "getty@tty1.service",
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/foo.service\n":               "user@1000.service",
		"0::/user.slice/user-1000.slice/session-2.scope\n":                                       "session-2.scope",
		"0::/system.slice/docker.service/x\n":                                                    "docker.service",
		"0::/init.scope\n":                                                                       "init.scope",
		"0::/\n":                                                                                 "",
		"0::/docker/abc\n":                                                                       "",
		"":                                                                                       "",
		"rubbish\n::\n":                                                                          "",
	} {
		if got := unitOfCgroup(text); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func TestParseMapped(t *testing.T) {
	for line, want := range map[string]mapped{
		"00400000-00452000 r-xp 00000000 08:02 173521      /usr/bin/dbus-daemon": {span: "00400000-00452000", dev: Device{8, 2}, inode: 173521, path: "/usr/bin/dbus-daemon", perms: "r-xp"},
		"7f-80 r--p 0 00:3a 12  /a b\\012c (deleted)":                            {span: "7f-80", dev: Device{0, 0x3a}, inode: 12, path: "/a b\nc", perms: "r--p", gone: true},
	} {
		if got, ok := parseMapped(line); !ok || got != want {
			t.Errorf("%q: %+v, %t", line, got, ok)
		}
	}
	for _, line := range []string{"", "7f-80 rw-p 0 00:00 0 ", "7f-80 rw-p 0 00:00 0 [heap]", "x", "7f-80 r--p 0 zz:00 1 /a", "7f-80 r--p 0 00:00 x /a"} {
		if got, ok := parseMapped(line); ok {
			t.Errorf("%q: %+v", line, got)
		}
	}
	if got := spanName("00400000-00452000"); got != "400000-452000" {
		t.Error(got)
	}
}

func FuzzParseMapped(f *testing.F) {
	f.Add("00400000-00452000 r-xp 00000000 08:02 173521      /usr/bin/dbus-daemon")
	f.Fuzz(func(_ *testing.T, line string) {
		parseMapped(line)
		unitOfCgroup(line)
	})
}

// TestScanOfThisMachine doesn't fail on processes that come and go.
func TestScanOfThisMachine(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_ = exec.CommandContext(ctx, "true").Run()
		}
	}()
	v := View{Root: "/", Top: map[string]Device{}}
	for range 5 {
		if _, err := (Scan{View: v}).Stale(ctx); err != nil {
			t.Error(err)
		}
	}
	cancel()
	<-done
}
