package cli

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
			for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
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
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var errs strings.Builder
	// Whoever runs the tests under nohup has them ignore the signal.
	program := exec.CommandContext(ctx, "env", "--default-signal=HUP", os.Args[0], "-test.run=^TestOutlive$")
	program.Env, program.Stdout, program.Stderr = append(os.Environ(), env+"="+dir), write, &errs
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	if _, err := out.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	out.Close() // as the end of an ssh session has it
	for range 3 {
		if err := program.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := program.Wait(); err != nil {
		t.Errorf("the program ends with %v", err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "done")); err != nil || string(text) != "signal: hangup" {
		t.Errorf("%q, %v", text, err)
	}
	if errs.String() != "prog: hung up: it goes on\n" {
		t.Errorf("it said %q", errs.String())
	}
}
