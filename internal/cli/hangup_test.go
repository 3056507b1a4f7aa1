package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// TestOutlive ends a program's terminal and its reader while it is at work: it does its work to the end, and a program that it starts
// can be hung up as ever.
func TestOutlive(t *testing.T) {
	const env = "CLI_TEST_OUTLIVE"
	if dir := os.Getenv(env); dir != "" {
		app := NewApp()
		root := app.Root(&cobra.Command{Use: "prog", RunE: func(*cobra.Command, []string) error {
			stop := app.Outlive("prog", "it goes on")
			fmt.Println("runs")
			for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
				fmt.Println("still") // nobody reads it
				if _, err := os.Stat(filepath.Join(dir, "go")); err == nil {
					break
				}
			}
			child := exec.Command("/bin/sh", "-c", "kill -HUP $$; sleep 1; echo outlived")
			out, err := child.CombinedOutput()
			stop()
			return os.WriteFile(filepath.Join(dir, "done"), fmt.Appendf(out, "%v", err), 0o600)
		}})
		os.Exit(app.Run(context.Background(), root, nil))
	}
	dir := t.TempDir()
	out, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	// Whoever runs the tests under nohup has them ignore the signal.
	program := exec.CommandContext(ctx, "env", "--default-signal=HUP", os.Args[0], "-test.run=^TestOutlive$")
	program.Env, program.Stdout = append(os.Environ(), env+"="+dir), write
	stderr, err := program.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	if _, err := out.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	out.Close() // as the end of an ssh session has it
	hangUp := func() {
		t.Helper()
		if err := program.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	hangUp()
	errs := bufio.NewReader(stderr)
	said, err := errs.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		hangUp()
		time.Sleep(20 * time.Millisecond)
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(errs)
	if err != nil {
		t.Error(err)
	}
	if err := program.Wait(); err != nil {
		t.Errorf("the program ends with %v", err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "done")); err != nil || string(text) != "signal: hangup" {
		t.Errorf("%q, %v", text, err)
	}
	if said += string(rest); said != "prog: hung up: it goes on\n" {
		t.Errorf("it said %q", said)
	}
}
