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

// The tests' own child inherits both of these.
const (
	// binEnv names the directory of the built programs.
	binEnv = "POWERNODE_E2E_BIN"
	// runEnv names the directory that everything else of one run is in. It is on a disk, as a
	// node's persist directory is.
	runEnv = "POWERNODE_E2E_RUN"
)

// TestMain builds the programs once and runs the tests in a mount namespace of their own.
func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Getenv(runEnv) == "" {
		// This process only waits for its child, and cleans up also after one that was ended.
		dir, err := os.MkdirTemp("/var/tmp", "powernode-e2e-")
		if err == nil {
			defer os.RemoveAll(dir) //nolint:errcheck // a scratch directory
			err = prepare(dir)
		}
		if err != nil {
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

// prepare makes what the child needs in the run's directory.
func prepare(dir string) error {
	if err := os.Setenv(runEnv, dir); err != nil || os.Getenv(binEnv) != "" {
		return err
	}
	bin := filepath.Join(dir, "bin")
	if err := build(bin); err != nil {
		return err
	}
	return os.Setenv(binEnv, bin)
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

// tempDir returns a new directory with a short path: sockets' paths are bounded.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(os.Getenv(runEnv), "")
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
