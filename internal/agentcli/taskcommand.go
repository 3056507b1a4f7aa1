package agentcli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/task"
)

// doTaskName is the command's name.
const doTaskName = "do-task"

// taskAnswer is the shape of what do-task prints: what became of a command that it ran for a task.
type taskAnswer struct {
	// Task is whose answer it is.
	Task string `json:"task"`
	// Code is the command's exit code, Error what it said, Result what it printed.
	Code   int             `json:"code"`
	Error  *taskError      `json:"error,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
}

// taskError is an error as commands print it for --output json.
type taskError struct {
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	Kind    string `json:"kind"`
}

// doTaskCommand is no command for people: the service has systemd run it, so that what a task does has rights that the service
// hasn't, and outlives it; what came of it is in the answer also for a service that was started meanwhile.
func doTaskCommand(app *cli.App) *cobra.Command {
	var stateDir string
	cmd := &cobra.Command{
		Use:    doTaskName + " UNIT TASK -- COMMAND...",
		Short:  "Run a command of this program for a task, and print what became of it",
		Hidden: true,
		Args:   cobra.MinimumNArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := task.CheckID(args[1]); err != nil {
				return fault.New(fault.Refuse, fault.Input, "", "%w", err)
			}
			unlock, err := lockTask(boot.RunDir, args[0])
			if err != nil {
				return err
			}
			defer unlock()
			if err := awaitChange(cmd.Context(), stateDir); err != nil {
				return err
			}
			answer := doTask(cmd.Context(), app, args[1], args[2:])
			return json.NewEncoder(app.Out).Encode(answer)
		},
	}
	stateFlag(cmd, &stateDir)
	return cmd
}

// doTask runs a command of this program in this process.
func doTask(ctx context.Context, app *cli.App, id string, args []string) taskAnswer {
	var out, said bytes.Buffer
	inner := *app
	inner.Out, inner.Err, inner.Quiet, inner.Format = &out, io.MultiWriter(&said, app.Err), true, cli.JSON
	answer := taskAnswer{Task: id, Code: inner.Run(ctx, New(&inner), args)}
	if json.Valid(out.Bytes()) {
		answer.Result = bytes.TrimSpace(out.Bytes())
	}
	if answer.Code != 0 {
		answer.Error = lastError(said.Bytes())
	}
	return answer
}

// lastError returns the error that a command said last, or nil where it said none.
func lastError(said []byte) *taskError {
	// An object of several lines, after perhaps something else.
	at := bytes.LastIndex(append([]byte("\n"), said...), []byte("\n{"))
	if at < 0 {
		return nil
	}
	var doc struct {
		Error *taskError `json:"error"`
	}
	if err := json.Unmarshal(said[at:], &doc); err != nil {
		return nil
	}
	return doc.Error
}

// taskLockName is held in the directory of the boot for as long as a command runs for a task, under the unit's name.
func taskLockName(unit string) string { return unit + ".lock" }

// lockTask returns what ends the lock. It is busy where such a command runs.
func lockTask(runDir, unit string) (unlock func(), err error) {
	dir, err := durable.OpenDir(runDir, nil)
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Input, "", "run a command for a task: %w", err)
	}
	defer dir.Close()
	lock, err := dir.TryLock(taskLockName(unit), durable.Exclusive)
	if err != nil {
		return nil, fault.New(fault.Retry, fault.General, "wait for it to end", "run a command for a task: %w", err)
	}
	return func() { _ = lock.Unlock() }, nil
}

// awaitChange waits until nobody changes what the node runs: a task has the time that a person hasn't.
func awaitChange(ctx context.Context, stateDir string) error {
	for {
		lock, err := reconcile.Lock(stateDir)
		if err == nil {
			return lock.Unlock()
		}
		if fault.KindOf(err) != fault.Retry {
			return nil // the command says what is wrong with it
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}
