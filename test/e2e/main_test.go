package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/powernode/powernode-agent/internal/mount/mounttest"
)

// binEnv names the directory of the built programs; the tests' own child inherits it.
const binEnv = "POWERNODE_E2E_BIN"

// TestMain builds the programs once and runs the tests in a mount namespace of their own.
func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Getenv(binEnv) == "" {
		dir, err := os.MkdirTemp(scratch(), "powernode-e2e-bin-")
		if err == nil {
			defer os.RemoveAll(dir) //nolint:errcheck // a scratch directory
			err = build(dir)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if err := os.Setenv(binEnv, dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	// Most of the time is spent waiting, for processes and for the time between two attempts.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	return mounttest.Main(m)
}

// build builds the programs as make build does, so that compiled packages are shared with it.
func build(dir string) error {
	for _, what := range []struct{ out, path string }{
		{dir + "/", "./cmd/..."},
		{filepath.Join(dir, "init"), "./test/e2e/testdata/init"},
	} {
		cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", what.out, what.path)
		cmd.Dir = filepath.Join("..", "..")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build %s: %w\n%s", what.path, err, out)
		}
	}
	return nil
}

// program returns the path of a built program.
func program(name string) string { return filepath.Join(os.Getenv(binEnv), name) }

// scratch is where temporary directories go: a file system on a disk, since a node's persist
// directory is one.
func scratch() string { return "/var/tmp" }

// tempDir returns a new directory with a short path: sockets' paths are bounded.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(scratch(), "powernode-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// needBoot skips a test where nothing can be booted.
func needBoot(t testing.TB) {
	t.Helper()
	mounttest.NeedMounts(t)
}
