// Package oracle finds the independent programs that tests compare this project's results with:
// mkcomposefs, fsck.erofs, cosign, oras, crane. scripts/setup installs them under .cache/tools/bin.
//
// It is for tests only. It promises that a missing program is never a silent pass: the test is
// skipped with the command that installs it, and fails instead where POWERNODE_REQUIRE_TOOLS is
// set, as `make test` and CI do.
package oracle

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// Root returns the repository's root directory.
func Root(t testing.TB) string {
	t.Helper()
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		t.Fatal("the test binary doesn't know its source files; build it without -trimpath")
	}
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// Path returns the path of the program called tool.
func Path(t testing.TB, tool string) string {
	t.Helper()
	path := filepath.Join(Root(t), ".cache", "tools", "bin", tool)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if path, err := exec.LookPath(tool); err == nil {
		return path
	}
	Missing(t, "the program "+tool+" isn't installed; run scripts/setup")
	return ""
}

// Missing ends the test because something that it needs isn't there: a failure where
// POWERNODE_REQUIRE_TOOLS is set, else a skip. what says what is missing and how to get it.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("POWERNODE_REQUIRE_TOOLS") != "" {
		t.Fatal(what)
	}
	t.Skip(what)
}
