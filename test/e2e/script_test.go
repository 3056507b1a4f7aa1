package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/powernode/powernode-agent/test/lab"
)

// TestScripts runs the scripts in testdata/script: what the programs do with their flags and
// arguments, without any platform or node. Beside testscript's own commands there is
//
//	exits CODE PROGRAM [ARG...]
//
// which runs a program that must end with exactly that exit code, and with nothing on standard
// output and one line on standard error unless the code is 0.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", os.Getenv(lab.BinEnv)+string(filepath.ListSeparator)+os.Getenv("PATH"))
			env.Setenv("HOME", "/nonexistent")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": exits},
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	if err != nil {
		ts.Fatalf("%v", err)
	}
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
	if out := ts.ReadFile("stdout"); want != 0 && out != "" {
		ts.Fatalf("something is on standard output")
	}
	if errs := ts.ReadFile("stderr"); want != 0 && (errs == "" || indexLine(errs) != len(errs)) {
		ts.Fatalf("standard error isn't one line")
	}
}

// indexLine returns the length of the first line, its end included.
func indexLine(s string) int {
	for i := range len(s) {
		if s[i] == '\n' {
			return i + 1
		}
	}
	return len(s)
}
