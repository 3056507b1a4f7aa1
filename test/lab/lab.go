// Package lab is what the tests of the whole share, those in namespaces (test/e2e) and those in
// virtual machines (test/vm): the three programs as they are built, a real platform with its
// operator at the command line, and modules made of a few lines.
//
// It is for tests only. It promises that every process that it starts and every file that it makes
// is gone when the test ends.
package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A test binary's own child inherits both of these.
const (
	// BinEnv names the directory of the built programs; set from outside, it saves building them.
	BinEnv = "POWERNODE_E2E_BIN"
	// RunEnv names the directory that everything else of one run is in. It is on a disk, as a
	// node's persist directory is.
	RunEnv = "POWERNODE_E2E_RUN"
)

// Main is for TestMain: it makes the run's directory, builds the programs into it, calls tests and
// removes the directory. In a process that has the directory from its parent, it only calls tests.
func Main(tests func() int) int {
	if os.Getenv(RunEnv) != "" {
		return tests()
	}
	dir, err := os.MkdirTemp("/var/tmp", "powernode-e2e-")
	if err == nil {
		defer os.RemoveAll(dir) //nolint:errcheck // a scratch directory
		err = prepare(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return tests()
}

// prepare makes what the tests need in the run's directory.
func prepare(dir string) error {
	if err := os.Setenv(RunEnv, dir); err != nil || os.Getenv(BinEnv) != "" {
		return err
	}
	bin := filepath.Join(dir, "bin")
	if err := build(bin); err != nil {
		return err
	}
	return os.Setenv(BinEnv, bin)
}

// build builds the programs as make build does, so that compiled packages are shared with it.
func build(dir string) error {
	for _, what := range []struct{ out, path string }{
		{dir + "/", "./cmd/..."},
		{dir + "/", "./test/lab/init"},
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

// Program returns the path of a built program.
func Program(name string) string { return filepath.Join(os.Getenv(BinEnv), name) }

// TempDir returns a new directory with a short path: sockets' paths are bounded.
func TempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(os.Getenv(RunEnv), "")
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

// Read returns a file's content.
func Read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Write writes a file anew.
func Write(t testing.TB, path string, data []byte, perm os.FileMode) {
	t.Helper()
	// A file that is there keeps its mode otherwise.
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, perm); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, perm); err != nil { // whatever the umask is
		t.Fatal(err)
	}
}
