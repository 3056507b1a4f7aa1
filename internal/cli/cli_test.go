package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/fault"
)

func run(t *testing.T, args ...string) (int, string, string) {
	t.Helper()
	var out, errs bytes.Buffer
	app := &App{In: strings.NewReader(""), Out: &out, Err: &errs, Getenv: func(string) string { return "" }, Format: Table}
	root := app.Root(&cobra.Command{Use: "prog"})
	fail := func(err error) *cobra.Command {
		return &cobra.Command{Use: "fail", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return err }}
	}
	verify := fail(fault.New(fault.Refuse, fault.Verify, "sign it", "verify \x1b[31mx: %w", errors.New("no\nsignature")))
	verify.Use = "verify"
	partial := fail(ExitStatus(ExitPartial))
	partial.Use = "partial"
	plain := fail(errors.New("broken"))
	plain.Use = "plain"
	interrupted := fail(fmt.Errorf("pull: %w", context.Canceled))
	interrupted.Use = "interrupted"
	root.AddCommand(app.VersionCommand(), verify, partial, plain, interrupted)
	code := app.Run(context.Background(), root, args)
	return code, out.String(), errs.String()
}

func TestErrorsArePrintedOnceWithTheRemedyAndTheirCode(t *testing.T) {
	for _, c := range []struct {
		args  []string
		code  int
		wants string
	}{
		{[]string{"verify"}, ExitVerify, "prog: verify \\x1b[31mx: no; signature; sign it\n"},
		{[]string{"plain"}, ExitFailure, "prog: broken\n"},
		{[]string{"partial"}, ExitPartial, ""},
		{[]string{"interrupted"}, ExitInterrupted, "prog: pull: context canceled\n"},
		{[]string{"plain", "--nope"}, ExitFailure, "prog: unknown flag: --nope; see prog plain --help\n"},
		{[]string{"nope"}, ExitFailure, "prog: unknown command \"nope\" for \"prog\"; see prog --help\n"},
		{[]string{"version", "--output", "xml"}, ExitFailure, "see prog version --help\n"},
	} {
		code, out, errs := run(t, c.args...)
		if code != c.code || !strings.HasSuffix(errs, c.wants) || (c.wants == "" && errs != "") || out != "" {
			t.Errorf("%v: code %d, stdout %q, stderr %q; want %d and %q", c.args, code, out, errs, c.code, c.wants)
		}
		if strings.Count(errs, "\n") > 1 {
			t.Errorf("%v: the error takes more than one line: %q", c.args, errs)
		}
	}
}

func TestErrorAsJSON(t *testing.T) {
	code, out, errs := run(t, "verify", "--output", "json")
	if code != ExitVerify || out != "" || !strings.Contains(errs, `"exit_code": 2`) || !strings.Contains(errs, `"hint": "sign it"`) || !strings.Contains(errs, `"kind": "refuse"`) {
		t.Errorf("code %d, stdout %q, stderr %q", code, out, errs)
	}
}

func TestEveryAreaHasADocumentedCode(t *testing.T) {
	rows := map[int]bool{}
	for _, row := range ExitTable() {
		if rows[row.Code] {
			t.Errorf("code %d stands twice", row.Code)
		}
		rows[row.Code] = true
	}
	for area := fault.General; area <= fault.Partial; area++ {
		code, ok := exitOfArea[area]
		if !ok || !rows[code] || code == ExitOK {
			t.Errorf("area %d: code %d isn't in the table", area, code)
		}
	}
}

func TestPrintableKeepsATerminalSafe(t *testing.T) {
	got := Printable("ok é \x00\x1b]0;x\x07 \x9b31m\u202e")
	if strings.ContainsAny(got, "\x00\x1b\x07\u009b") || !strings.HasPrefix(got, "ok é ") {
		t.Errorf("%q", got)
	}
}

func TestProgressWithoutATerminalIsPlainLines(t *testing.T) {
	var errs bytes.Buffer
	app := &App{Err: &errs, Getenv: func(string) string { return "" }}
	p := app.NewProgress()
	part := p.Start("pull nginx", 10)
	part.Add(10)
	part.Done(nil)
	p.Start("compose", 0).Done(errors.New("x"))
	p.Close()
	lines := strings.Split(strings.TrimSpace(errs.String()), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[1], "pull nginx: 10 B in ") || !strings.HasPrefix(lines[3], "compose: failed after ") {
		t.Errorf("%q", errs.String())
	}
	if strings.Contains(errs.String(), "\x1b") {
		t.Error("an escape sequence went to something that isn't a terminal")
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 700 << 20: "700.0 MiB", 1 << 62: "4.0 EiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int]string{0: "0 modules", 1: "1 module", 2: "2 modules"} {
		if got := Count(n, "module"); got != want {
			t.Errorf("%d: %q", n, got)
		}
	}
}

func TestShortDigest(t *testing.T) {
	for whole, want := range map[string]string{
		"": "", "abc": "abc", "0123456789abcdef": "0123456789ab",
		"sha256:0123456789abcdef": "0123456789ab", "sha256:": "",
	} {
		if got := ShortDigest(whole); got != want {
			t.Errorf("%q becomes %q, not %q", whole, got, want)
		}
	}
}

// TestSecondSignal runs a program that doesn't heed its context: the first signal ends the
// context, the second the program.
func TestSecondSignal(t *testing.T) {
	if os.Getenv("CLI_TEST_STUCK") != "" {
		app := NewApp()
		root := app.Root(&cobra.Command{Use: "prog", RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Println("runs")
			<-cmd.Context().Done()
			fmt.Println("cancelled")
			time.Sleep(time.Hour)
			return nil
		}})
		os.Exit(app.Run(context.Background(), root, nil))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	program := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestSecondSignal$")
	program.Env = append(os.Environ(), "CLI_TEST_STUCK=1")
	out, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for _, want := range []string{"runs", "cancelled"} {
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("the program said %q, not %q", lines.Text(), want)
		}
		if err := program.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	// The second may come while the first is still being dealt with; then a third does it.
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case <-ended:
				return
			case <-time.After(50 * time.Millisecond):
				_ = program.Process.Signal(syscall.SIGTERM) // or it has ended
			}
		}
	}()
	err = program.Wait()
	close(ended)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !exit.Sys().(syscall.WaitStatus).Signaled() || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("after the second signal: %v", err)
	}
}
