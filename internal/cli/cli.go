// Package cli is what the three programs' command lines share: streams, the output format, one
// way to print an error, and the one table of exit codes.
//
// It promises that an error is printed once, on standard error, with what to do next, and that
// no other package knows exit codes. It holds no command of its own.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/fault"
)

// App is what every command of a program gets: where to read and write, and how to print.
type App struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
	// Getenv reads the environment; os.Getenv outside tests.
	Getenv func(string) string
	// Format is what --output asks for. Commands read it when they run.
	Format Format
	// Quiet leaves progress out.
	Quiet bool
	// Machine is the root directory of the machine that may be asked who it is, "/" outside tests. Without one no source of identity
	// counts but those that flags name: a test on a machine of a cloud must not get at that cloud's metadata.
	Machine string
}

// NewApp returns an App over the process's own streams and environment.
func NewApp() *App {
	return &App{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Format: Table, Machine: "/"}
}

// Root prepares a program's root command: the common flags, errors left to Run, and a hint
// instead of a page of usage when a flag is wrong.
func (a *App) Root(cmd *cobra.Command) *cobra.Command {
	cmd.SilenceErrors = true
	cmd.SilenceUsage = true
	cmd.PersistentFlags().VarP(&a.Format, "output", "o", "how to print: table or json")
	cmd.PersistentFlags().BoolVarP(&a.Quiet, "quiet", "q", false, "print no progress")
	cmd.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fault.New(fault.Refuse, fault.Input, "see "+c.CommandPath()+" --help", "%w", err)
	})
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.SetIn(a.In)
	cmd.SetOut(a.Out)
	cmd.SetErr(a.Err)
	return cmd
}

// Run executes the program with args (without the program's name), prints its error, and returns
// the exit code. SIGINT and SIGTERM cancel the command's context; a second one ends the program at
// once, so that a command that doesn't heed its context can be stopped.
func (a *App) Run(ctx context.Context, root *cobra.Command, args []string) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, stop)()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return ExitOK
	}
	var code ExitStatus
	if errors.As(err, &code) {
		return int(code)
	}
	if isUsage(err) {
		err = fault.New(fault.Refuse, fault.Input, "see "+cmd.CommandPath()+" --help", "%w", err)
	}
	a.printError(root.Name(), err)
	return ExitCode(err)
}

// isUsage reports whether err is one of cobra's own complaints about arguments: everything else
// that reaches Run carries a fault or a cause of the project's own.
func isUsage(err error) bool {
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return false
	}
	text := err.Error()
	for _, start := range []string{
		"unknown command ", "unknown flag", "unknown shorthand", "accepts ", "requires at least ",
		"requires at most ", "required flag(s) ", "invalid argument ", "if any flags in the group ", "at least one of the flags ",
	} {
		if strings.HasPrefix(text, start) {
			return true
		}
	}
	return false
}

// printError prints "program: what happened; what to do next." on one line, or, for json, one
// object. Control characters from outside are escaped so that an error can't drive a terminal.
func (a *App) printError(program string, err error) {
	if a.Format == JSON {
		_ = a.writeJSON(a.Err, map[string]any{"error": errorDoc{
			Message: err.Error(), Hint: fault.HintOf(err), Kind: fault.KindOf(err).String(), ExitCode: ExitCode(err),
		}})
		return
	}
	line := program + ": " + err.Error()
	if hint := fault.HintOf(err); hint != "" {
		line += "; " + hint
	}
	fmt.Fprintln(a.Err, Printable(line))
}

// errorDoc is the documented shape of an error under --output json.
type errorDoc struct {
	Message  string `json:"message"`
	Hint     string `json:"hint,omitempty"`
	Kind     string `json:"kind"`
	ExitCode int    `json:"exit_code"`
}

// Printable returns s on one line, with everything that doesn't print escaped.
func Printable(s string) string { return fault.OneLine(s) }
