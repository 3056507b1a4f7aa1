package postgrestest

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/platform/memorydir"
)

// Both runs a package's tests twice: over SQLite, and over PostgreSQL where that is installed, with their files in memory. It is for
// TestMain, and returns the exit code. Someone who has set Variable gets one run.
//
// The two run side by side, the second in a process of its own whose output follows the first's, but where a test's flags ask for what
// two processes can't write: then it follows in this one.
func Both(m *testing.M) int {
	if err := memorydir.Use(); err != nil {
		return failed(err)
	}
	if _, set := os.LookupEnv(Variable); set {
		return m.Run()
	}
	if _, err := programs(); err != nil && os.Getenv("POWERNODE_REQUIRE_TOOLS") == "" {
		code := m.Run()
		fmt.Fprintln(os.Stderr, "not run again over PostgreSQL:", err)
		return code
	}
	flag.Parse()
	if alone() {
		code := m.Run()
		if err := os.Setenv(Variable, "postgres"); err != nil {
			return failed(err)
		}
		fmt.Fprintln(os.Stderr, again)
		return max(code, m.Run())
	}
	program, err := os.Executable()
	if err != nil {
		return failed(err)
	}
	// A test's files are looked for from here, and its time is bounded, there as here.
	second := exec.CommandContext(context.Background(), program, slices.DeleteFunc(slices.Clone(os.Args[1:]), func(arg string) bool {
		return strings.HasPrefix(arg, "-test.testlogfile=") // what this process has read, for the cache of results
	})...)
	second.Env = append(os.Environ(), Variable+"=postgres")
	var said bytes.Buffer
	second.Stdout, second.Stderr = &said, &said
	if err := second.Start(); err != nil {
		return failed(err)
	}
	code := m.Run()
	err = second.Wait()
	fmt.Fprintln(os.Stderr, again)
	if _, err := os.Stdout.Write(said.Bytes()); err != nil {
		return failed(err)
	}
	exit, ended := errors.AsType[*exec.ExitError](err)
	switch {
	case ended:
		return max(code, 1, exit.ExitCode())
	case err != nil:
		return failed(err)
	}
	return code
}

const again = "the same tests over PostgreSQL:"

func failed(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// alone reports whether the flags have this process write a file, or measure: another one would be in its way.
func alone() bool {
	for _, name := range []string{"bench", "fuzz", "list", "coverprofile", "gocoverdir", "cpuprofile", "memprofile", "blockprofile", "mutexprofile", "trace"} {
		if f := flag.Lookup("test." + name); f != nil && f.Value.String() != "" {
			return true
		}
	}
	return false
}
