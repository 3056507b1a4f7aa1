package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/mount/mounttest"
	"github.com/powernode/powernode-agent/test/lab"
)

// TestPlatformRefuses: what keeps a platform from starting is named, with what to do.
func TestPlatformRefuses(t *testing.T) {
	t.Parallel()
	running := newPlatform(t)
	for _, c := range []struct {
		name string
		// do spoils what is needed and returns the flags of serve.
		do    func(t testing.TB, dir string) []string
		code  int
		wants []string
	}{
		{"a port in use", func(t testing.TB, dir string) []string {
			return []string{"--data", filepath.Join(dir, "data"), "--listen", running.Listen}
		}, 1, []string{running.Listen, "in use", "--listen"}},
		{"an address that is none", func(t testing.TB, dir string) []string {
			return []string{"--data", filepath.Join(dir, "data"), "--listen", "nowhere"}
		}, 1, []string{"nowhere", "--listen"}},
		{"an address of another machine", func(t testing.TB, dir string) []string {
			return []string{"--data", filepath.Join(dir, "data"), "--listen", "192.0.2.1:8443"}
		}, 1, []string{"192.0.2.1:8443", "--listen"}},
		{"a data directory in use", func(t testing.TB, dir string) []string {
			return []string{"--data", running.Dir, "--listen", "127.0.0.1:0"}
		}, 1, []string{running.Dir, "locked by process", "stop it"}},
		{"a data directory that can't be written", func(t testing.TB, dir string) []string {
			readOnlyDir(t, dir)
			return []string{"--data", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0"}
		}, 3, []string{"data", "read-only", "writable"}},
		{"a data directory that is a file", func(t testing.TB, dir string) []string {
			write(t, filepath.Join(dir, "data"), nil, 0o600)
			return []string{"--data", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0"}
		}, 1, []string{"data", "--data"}},
		{"a data directory for everyone", func(t testing.TB, dir string) []string {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			return []string{"--data", dir, "--listen", "127.0.0.1:0"}
		}, 1, []string{"chmod 700"}},
		{"no data directory", func(testing.TB, string) []string { return []string{"--data", ""} }, 1, []string{"--data"}},
		{"a damaged database", func(t testing.TB, dir string) []string {
			return used(t, dir, func(dir string) {
				write(t, filepath.Join(dir, "platform.db"), []byte(strings.Repeat("rubbish ", 1024)), 0o600)
			})
		}, 3, []string{"platform.db", "not a database", "backup"}},
		{"a database cut short", func(t testing.TB, dir string) []string {
			return used(t, dir, func(dir string) { truncate(t, filepath.Join(dir, "platform.db")) })
		}, 3, []string{"platform.db", "malformed", "backup"}},
		{"a damaged authority", func(t testing.TB, dir string) []string {
			return used(t, dir, func(dir string) {
				for _, path := range files(t, filepath.Join(dir, "ca")) {
					write(t, path, []byte("rubbish"), 0o600)
				}
			})
		}, 1, []string{"ca"}},
		{"a full disk", func(t testing.TB, dir string) []string {
			disk := filepath.Join(dir, "disk")
			mountTmpfs(t, disk, 64<<10)
			return []string{"--data", filepath.Join(disk, "data"), "--listen", "127.0.0.1:0"}
		}, 3, []string{"disk is full", "room"}},
		{"a public URL in plain", func(testing.TB, string) []string { return []string{"--public-url", "http://example.org"} }, 1, []string{"http://example.org", "https"}},
		{"a name that can't be one", func(testing.TB, string) []string { return []string{"--tls-name", "no name"} }, 1, []string{"no name"}},
		{"a log level that isn't one", func(testing.TB, string) []string { return []string{"--log-level", "loud"} }, 1, []string{"loud", "warn"}},
		{"a log format that isn't one", func(testing.TB, string) []string { return []string{"--log-format", "xml"} }, 1, []string{"xml", "json"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			mounttest.NeedMounts(t)
			dir := tempDir(t)
			flags := c.do(t, dir)
			command(t, "", nil, "powernode-platform", append([]string{"serve"}, flags...)...).Refused(t, c.code, c.wants...)
		})
	}
	if _, err := net.Dial("tcp", running.Listen); err != nil {
		t.Errorf("the platform that was in the way is gone: %v", err)
	}
}

// used runs a platform once, spoils its data directory, and returns the flags to start it again.
func used(t testing.TB, dir string, spoil func(dir string)) []string {
	t.Helper()
	p := &platform{&lab.Platform{T: t, Dir: filepath.Join(dir, "data"), Listen: "127.0.0.1:0"}}
	p.Config = filepath.Join(p.Dir, "operator.json")
	p.Start()
	p.Operator("node", "create", "a").OK(t)
	p.Stop()
	spoil(p.Dir)
	return []string{"--data", p.Dir, "--listen", "127.0.0.1:0"}
}

// readOnlyDir makes a directory read-only by a mount over itself: permissions don't stop root.
func readOnlyDir(t testing.TB, dir string) {
	t.Helper()
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
}

func files(t testing.TB, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("nothing in %s: %v", dir, err)
	}
	return paths
}

// TestPlatformEnds: SIGTERM and SIGINT end it in order, and what it made is found again.
func TestPlatformEnds(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"))
	n := p.node("web", "base")
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		if r := p.End(t, s); r.Code != 0 || strings.Contains(r.Stderr, "powernode-platform: ") {
			t.Errorf("%v: exit code %d\n%s", s, r.Code, r.Stderr)
		}
		p.Start()
	}
	p.Kill()
	p.Start()
	s := n.boot()
	if status := s.status(); !status.InStep {
		t.Errorf("status: %+v", status)
	}
	s.exit()
}
