package switchroot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/mount/mounttest"
	"github.com/powernode/powernode-agent/internal/oracle"
)

// roleEnv makes the test binary a process that switches root, and roleRoot says where to.
const (
	roleEnv  = "POWERNODE_SWITCHROOT_ROLE"
	roleRoot = "POWERNODE_SWITCHROOT_ROOT"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		if err := play(role, os.Getenv(roleRoot)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(mounttest.Main(m))
}

// play switches to the root by one of the ways and executes its init.
func play(role, path string) error {
	r, err := Open(path, Options{Namespace: true})
	if err != nil {
		return err
	}
	if role == "move" {
		r.how = move
	}
	if err := r.CheckInit("/sbin/init"); err != nil {
		return err
	}
	persist, err := durable.OpenDir(filepath.Join(filepath.Dir(path), "persist"), nil)
	if err != nil {
		return err
	}
	if err := r.Persist(context.Background(), persist, "var"); err != nil {
		return err
	}
	if err := r.Bind(persist.File(), "persist"); err != nil {
		return err
	}
	freed, err := r.Switch()
	if err != nil {
		return err
	}
	if err := os.WriteFile("/run/freed", fmt.Appendf(nil, "%d files", freed.Files), 0o600); err != nil {
		return err
	}
	return unix.Exec("/sbin/init", []string{"init", "/", "/var/lib/site/state", "/persist", "/proc/1/comm", "/proc/self/mountinfo", "/dev", "/run/freed", "/host-marker"}, nil)
}

// buildInit builds the static program and returns its bytes.
func buildInit(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		oracle.Missing(t, "building an init needs the go command")
	}
	path := filepath.Join(t.TempDir(), "init")
	build := exec.Command("go", "build", "-o", path, "./testdata/init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the init: %v: %s", err, out)
	}
	b, err := os.ReadFile(path)
	must(t, err)
	return string(b)
}

// newRoot mounts a union with an init at DIR/root, next to DIR/persist.
func newRoot(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"root", "persist", "upper", "work"} {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o755))
	}
	image := mounttest.Seal(t, oracle.Path(t, "mkcomposefs"), dir, files)
	spec := mount.UnionSpec{
		Image: open(t, image.Path), Digest: image.Digest, Objects: open(t, image.Objects), Level: mount.Checked,
		Upper: open(t, filepath.Join(dir, "upper")), Work: open(t, filepath.Join(dir, "work")),
	}
	u, err := mount.Union(spec)
	must(t, err)
	defer u.Close()
	must(t, u.Attach(filepath.Join(dir, "root")))
	t.Cleanup(func() {
		if err := mount.Unmount(filepath.Join(dir, "root"), mount.Claim{Digest: image.Digest}); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "root")
}

// become runs the test binary in a role, in mount and PID namespaces of its own.
func become(role, root string) (stdout string, err error) {
	child := exec.Command("/proc/self/exe")
	child.Env = append(os.Environ(), roleEnv+"="+role, roleRoot+"="+root)
	child.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Cloneflags: unix.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	var errs strings.Builder
	child.Stderr = &errs
	out, err := child.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, errs.String())
	}
	return string(out), nil
}

func TestSwitch(t *testing.T) {
	mounttest.NeedMounts(t)
	init := buildInit(t)
	for _, role := range []string{"pivot", "move"} {
		t.Run(role, func(t *testing.T) {
			root := newRoot(t, map[string]string{
				"usr/lib/systemd/systemd": init, "sbin/": "", "var/lib/site/state": "first content", "proc/": "", "sys/": "", "dev/": "", "run/": "", "tmp/": "",
			})
			must(t, os.Symlink("/usr/lib/systemd/systemd", filepath.Join(root, "sbin/init")))
			before, err := mount.ReadTable()
			must(t, err)
			out, err := become(role, root)
			must(t, err)
			var found map[string]string
			if err := json.Unmarshal([]byte(out), &found); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			want := map[string]string{
				"pid": "1", "cwd": "/", "/": "dev persist proc run sbin sys tmp usr var ", "/proc/1/comm": "init\n",
				"/var/lib/site/state": "first content", "/persist": "var ", "/run/freed": "0 files",
				"/dev":            "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero ",
				"write /dev/null": "<nil>", "write /dev/shm/x": "<nil>", "write /run/x": "<nil>", "write /tmp/x": "<nil>",
			}
			for what, value := range want {
				if found[what] != value {
					t.Errorf("%s: %q, want %q", what, found[what], value)
				}
			}
			if !strings.Contains(found["write /sys/kernel/x"], "read-only") {
				t.Errorf("writing to /sys: %s", found["write /sys/kernel/x"])
			}
			table, err := mount.ParseTable(strings.NewReader(found["/proc/self/mountinfo"]))
			must(t, err)
			var points []string
			for _, e := range table {
				points = append(points, e.Point)
			}
			if got := strings.Join(points, " "); got != "/ /var /persist /run /dev /sys /proc /dev/pts /dev/shm" {
				t.Errorf("mounted there: %s", got)
			}
			if unions := table.Unions(); len(unions) != 1 || unions[0].Entry.Point != "/" {
				t.Errorf("unions there: %+v", unions)
			}
			after, err := mount.ReadTable()
			must(t, err)
			if len(after) != len(before) {
				t.Errorf("%d mounts before, %d after", len(before), len(after))
			}
		})
	}
}

func TestSwitchRefusesBeforeItChanges(t *testing.T) {
	mounttest.NeedMounts(t)
	tests := map[string]struct {
		files map[string]string
		text  string
	}{
		"no init":          {map[string]string{"etc/x": "x"}, "has no /sbin/init"},
		"init of no kind":  {map[string]string{"sbin/init": "text"}, "neither an ELF program nor a script"},
		"a file for /proc": {map[string]string{"sbin/init": "#!/sbin/sh\n", "sbin/sh": buildInit(t), "proc": "x", "var/": ""}, "/proc in the new root is not a directory"},
	}
	for name, test := range tests {
		root := newRoot(t, test.files)
		_, err := become("pivot", root)
		if err == nil || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(t.TempDir(), Options{Namespace: true}); !errors.Is(err, mount.ErrNotMounted) {
		t.Errorf("a directory that is no mount: %v", err)
	}
	if _, err := Open(t.TempDir(), Options{}); fault.AreaOf(err) != fault.Destructive {
		t.Errorf("a process that is not the first: %v", err)
	}
}

func TestChoose(t *testing.T) {
	tests := []struct {
		facts     facts
		namespace bool
		want      way
	}{
		{facts{firstProcess: true, machineNamespace: true, rootType: "rootfs"}, false, moveAndFree},
		{facts{firstProcess: true, machineNamespace: true, rootType: "ext4"}, false, pivot},
		{facts{firstProcess: true, machineNamespace: true, rootType: "tmpfs"}, false, pivot},
		{facts{rootType: "ext4"}, true, pivot},
		{facts{rootType: "rootfs"}, true, move},
		{facts{machineNamespace: true, rootType: "ext4"}, true, 0},
		{facts{firstProcess: true, rootType: "rootfs"}, true, 0},
		{facts{machineNamespace: true, rootType: "rootfs"}, false, 0},
		{facts{rootType: "ext4"}, false, 0},
	}
	for _, test := range tests {
		got, err := choose(test.facts, test.namespace)
		if got != test.want || (err == nil) != (test.want != 0) {
			t.Errorf("%+v, namespace %v: %v, %v; want %v", test.facts, test.namespace, got, err, test.want)
		}
		if err != nil && (fault.KindOf(err) != fault.Refuse || fault.HintOf(err) == "") {
			t.Errorf("%+v: %v is no refusal with a hint", test.facts, err)
		}
	}
}

// TestLook runs in the namespace that the tests made for themselves.
func TestLook(t *testing.T) {
	mounttest.NeedMounts(t)
	f, err := look()
	must(t, err)
	if f.firstProcess || f.machineNamespace || f.rootType == "" {
		t.Errorf("facts %+v", f)
	}
}

func open(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
