package systemdtest

import (
	"bytes"
	"context"
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/oracle"
)

//go:embed boot.sh
var bootScript string

// insideEnv tells a test that it runs inside; where vmEnv is set, the whole machine is a test's, with a systemd of its own.
const (
	insideEnv = "POWERNODE_TEST_INSIDE"
	vmEnv     = "POWERNODE_TEST_SYSTEMD"
)

// Inside has the calling test run once more, in a system whose first process is a real systemd, on this machine's kernel and in
// namespaces of its own, with no network but loopback. There it returns true; out here, false once that is over. Outside
// systemd answers nobody: it knows no process of another namespace. The test is skipped without root. prepare, which may be nil,
// returns programs that are to be there, by their paths there.
func Inside(t *testing.T, prepare func() map[string]string) bool {
	t.Helper()
	if os.Getenv(insideEnv) != "" || os.Getenv(vmEnv) != "" {
		return true
	}
	m := boot(t)
	m.bring(t, "/proc/self/exe", "/run/test")
	if prepare != nil {
		for there, here := range prepare() {
			m.bring(t, here, there)
		}
	}
	out, err := m.command(t.Context(), "env", insideEnv+"=1", "HOME=/root", "/run/test", "-test.v", "-test.timeout=9m", "-test.run=^"+regexp.QuoteMeta(t.Name())+"$").CombinedOutput()
	t.Logf("inside:\n%s", out)
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Fatalf("inside it fails: %v", err)
	}
	return false
}

// bring copies a program in.
func (m *machine) bring(t testing.TB, here, there string) {
	t.Helper()
	program, err := os.ReadFile(here)
	if err != nil {
		t.Fatal(err)
	}
	there = filepath.Join("/proc", strconv.Itoa(m.pid), "root", there)
	if err := os.MkdirAll(filepath.Dir(there), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(there, program, 0o755); err != nil { //nolint:gosec // to be run, by any user
		t.Fatal(err)
	}
}

// machine is a real systemd as the first process of its namespaces, by its process here.
type machine struct{ pid int }

// boot boots the systemd of the Debian that tests in virtual machines use, and ends it with the test.
func boot(t testing.TB) *machine {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("namespaces need root")
	}
	lower, err := filepath.EvalSymlinks(filepath.Join(oracle.Root(t), ".cache", "vm", "debian"))
	if err != nil {
		oracle.Missing(t, "there is no Debian for systemd; run scripts/setup vm")
	}
	cgroup := controlGroup(t)
	var log bytes.Buffer
	cmd := exec.Command("/bin/sh", "-c", bootScript, "boot.sh", lower, t.TempDir(), cgroup) //nolint:gosec,noctx // ends with the test
	cmd.Stdout, cmd.Stderr = &log, &log
	life, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = life.Close()
		_ = cmd.Wait()
		removeGroup(t, cgroup)
		if t.Failed() {
			t.Logf("systemd said:\n%s", log.String())
		}
	})
	m := &machine{}
	m.await(t, cmd.Process.Pid)
	return m
}

// await returns once systemd answers.
func (m *machine) await(t testing.TB, parent int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		if m.pid = childOf(childOf(parent)); m.pid != 0 {
			if m.systemd() {
				out, err := m.command(ctx, "systemctl", "is-system-running").Output()
				if err == nil {
					return
				}
				if strings.TrimSpace(string(out)) == "degraded" {
					units, _ := m.command(ctx, "systemctl", "--failed", "--no-pager").Output()
					t.Fatalf("systemd came up with failed units: %s", units)
				}
			}
		}
		select {
		case <-ctx.Done():
			t.Fatal("systemd doesn't come up")
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (m *machine) systemd() bool {
	name, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(m.pid), "comm"))
	return err == nil && strings.TrimSpace(string(name)) == "systemd"
}

func childOf(pid int) int {
	if pid == 0 {
		return 0
	}
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "task", strconv.Itoa(pid), "children"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	child, _ := strconv.Atoi(first)
	return child
}

func (m *machine) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(m.pid), "-a", "--"}, args...)...) //nolint:gosec // a test's own words
}

// controlGroup makes a group below the machine's cgroup2 hierarchy.
func controlGroup(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			group, err := os.MkdirTemp(f[1], "powernode-test-")
			if err != nil {
				t.Fatal(err)
			}
			return group
		}
	}
	t.Skip("this machine has no cgroup2")
	return ""
}

// removeGroup removes a group with those below it, once their processes are gone.
func removeGroup(t testing.TB, group string) {
	t.Helper()
	for range 100 {
		var groups []string
		_ = filepath.WalkDir(group, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				groups = append(groups, path)
			}
			return nil
		})
		for i := len(groups) - 1; i >= 0; i-- {
			_ = os.Remove(groups[i])
		}
		if _, err := os.Stat(group); err != nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("the control group %s is left", group)
}
