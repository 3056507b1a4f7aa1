package live

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/mount/mounttest"
)

// sandboxKind in the environment has the test binary live in a mount namespace of its own, made as the
// kind says, of the root in sandboxRoot.
const (
	sandboxKind = "LIVE_SANDBOX"
	sandboxRoot = "LIVE_SANDBOX_ROOT"
)

func init() {
	if os.Getenv(sandboxKind) != "" {
		runtime.LockOSThread() // what /proc shows of a process is its first thread's
	}
}

func TestMain(m *testing.M) {
	if kind := os.Getenv(sandboxKind); kind != "" {
		if err := inSandbox(kind, os.Getenv(sandboxRoot)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(mounttest.Main(m))
}

// inSandbox does what systemd does for a unit, and then answers: "read PATH" by the content, "write
// PATH" by whether it could.
func inSandbox(kind, root string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	bind := func(path string, flags uintptr) error {
		if err := unix.Mount(path, path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return err
		}
		return unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|flags, "")
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return err
	}
	var err error
	switch kind {
	case "PrivateTmp":
		err = unix.Mount("tmp", root+"/tmp", "tmpfs", 0, "")
	case "ProtectSystem=full":
		err = bind(root+"/usr", unix.MS_RDONLY)
		if err == nil {
			err = bind(root+"/etc", unix.MS_RDONLY)
		}
	case "ProtectSystem=strict":
		err = unix.MountSetattr(unix.AT_FDCWD, root, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
		if err == nil {
			err = bind(root+"/usr/writable", 0)
		}
	case "InaccessiblePaths":
		err = unix.Mount("none", root+"/usr/secret", "tmpfs", 0, "")
	case "private":
		err = unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, "")
	}
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		what, path, _ := strings.Cut(lines.Text(), " ")
		var err error
		answer := "yes"
		if what == "read" {
			var b []byte
			b, err = os.ReadFile(path)
			answer = string(b)
		} else {
			var f *os.File
			if f, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644); err == nil {
				f.Close()
			}
		}
		if err != nil {
			answer = err.Error()
		}
		fmt.Println(answer)
	}
	return nil
}

// sandbox is a process in a mount namespace of its own.
type sandbox struct {
	*node
	in  io.Writer
	out *bufio.Scanner
	pid int
}

func (n *node) sandbox(kind string) *sandbox {
	n.Helper()
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), sandboxKind+"="+kind, sandboxRoot+"="+n.root)
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	must(n, err)
	out, err := c.StdoutPipe()
	must(n, err)
	must(n, c.Start())
	n.Cleanup(func() {
		in.Close()
		if err := c.Wait(); err != nil {
			n.Errorf("%s: %v", kind, err)
		}
	})
	s := &sandbox{node: n, in: in, out: bufio.NewScanner(out), pid: c.Process.Pid}
	if answer := s.answer(); answer != "ready" {
		n.Fatalf("%s: %s", kind, answer)
	}
	return s
}

func (s *sandbox) answer() string {
	s.Helper()
	if !s.out.Scan() {
		s.Fatal("the sandbox doesn't answer")
	}
	return s.out.Text()
}

func (s *sandbox) sees(path string) string {
	s.Helper()
	fmt.Fprintln(s.in, "read", s.root+"/"+path)
	return s.answer()
}

func (s *sandbox) canWrite(path string) bool {
	s.Helper()
	fmt.Fprintln(s.in, "write", s.root+"/"+path)
	return s.answer() == "yes"
}

// TestSandboxes swaps twice below processes in sandboxes, the first time on top of the directories and
// then beneath mounts: each keeps what it was protected from.
func TestSandboxes(t *testing.T) {
	n := newNode(t)
	files := func(version string) Side {
		f := versionFiles(version)
		f["tmp/"], f["usr/writable/"], f["usr/secret/key"], f["home/version"] = "", "", version, version
		return n.files(f)
	}
	a, b, c := files("a"), files("b"), files("c")
	n.boot(a, nil)
	type want struct {
		keeps    []string // at first, and then: what is kept once is kept for all
		later    []string
		version  string // of /usr; "" is that of the root
		writable bool   // /usr
	}
	all := []string{"etc", "home", "srv-a", "srv-b", "srv-c", "usr"}
	kinds := map[string]want{
		"PrivateTmp":           {writable: true},
		"ProtectSystem=full":   {keeps: []string{"etc", "usr"}, later: []string{"etc", "usr"}, version: "old"},
		"ProtectSystem=strict": {keeps: all, later: all, version: "old"},
		"InaccessiblePaths":    {keeps: all, later: all, version: "old", writable: true},
		"private":              {keeps: all, later: all, version: "old", writable: true},
	}
	current, old := a, make(map[*sandbox]string)
	of := make(map[*sandbox]string)
	for _, to := range []Side{b, c, a} {
		for kind := range kinds {
			s := n.sandbox(kind)
			of[s], old[s] = kind, n.content("usr/version")
		}
		before := n.content("usr/version")
		report, err := Check(n.spec(current, to))
		must(t, err)
		result := n.swap(current, to)
		current = to
		version := n.content("usr/version")
		for s, kind := range of {
			want := kinds[kind]
			wantVersion := version
			if want.version != "" {
				wantVersion = old[s]
			}
			if got := s.sees("usr/version"); got != wantVersion {
				t.Errorf("%s, begun on %s, now %s: /usr is of version %s, want %s", kind, old[s], version, got, wantVersion)
			}
			// What isn't protected is seen as it is.
			if kind == "PrivateTmp" || kind == "ProtectSystem=full" {
				for _, path := range []string{"home/version", "srv-" + version + "/file"} {
					if got := s.sees(path); got != version {
						t.Errorf("%s, begun on %s: /%s reads %s, want %s", kind, old[s], path, got, version)
					}
				}
			}
			if got := s.canWrite("usr/new-file"); got != want.writable {
				t.Errorf("%s, begun on %s, now %s: /usr can be written: %v", kind, old[s], version, got)
			}
			if got := s.canWrite("etc/new-file"); got != (kind != "ProtectSystem=full" && kind != "ProtectSystem=strict") {
				t.Errorf("%s, begun on %s, now %s: /etc can be written: %v", kind, old[s], version, got)
			}
			if got := s.sees("usr/secret/key"); (kind == "InaccessiblePaths") != strings.Contains(got, "no such file") {
				t.Errorf("%s: the secret reads %s", kind, got)
			}
			if kind == "ProtectSystem=strict" && !s.canWrite("usr/writable/file") {
				t.Errorf("%s: nothing can be written where it may be", kind)
			}
			for what, namespaces := range map[string][]Namespace{"swap": result.Kept, "check": report.Namespaces} {
				i := slices.IndexFunc(namespaces, func(ns Namespace) bool { return slices.Contains(ns.PIDs, s.pid) })
				keeps := want.keeps
				if old[s] != before {
					keeps = want.later
				}
				if (i < 0) != (keeps == nil) {
					t.Errorf("%s (%d, begun on %s), %s: %d %v namespaces %+v", kind, s.pid, old[s], what, i, keeps, namespaces)
				} else if i >= 0 && !subset(namespaces[i].Keeps, keeps) {
					t.Errorf("%s, %s: keeps %v, want of %v", kind, what, namespaces[i].Keeps, keeps)
				}
			}
		}
	}
}

func subset(a, of []string) bool {
	return len(a) > 0 && !slices.ContainsFunc(a, func(s string) bool { return !slices.Contains(of, s) })
}
