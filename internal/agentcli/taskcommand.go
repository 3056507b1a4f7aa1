package agentcli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/event"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/task"
)

// doTaskName is the command's name.
const doTaskName = "do-task"

// maxPrinted bounds what is kept of what a command prints until it has ended, in bytes: in a process of its own, which ends then.
const maxPrinted = 16 << 20

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
			words := openWords(boot.RunDir, args[0], args[1])
			defer words.Close()
			var told interruption
			defer told.watch(cmd.Context())()
			if err := awaitChange(cmd.Context(), stateDir, words); err != nil {
				return err
			}
			answer := doTask(cmd.Context(), app, args[1], args[2:], words)
			if late := told.late(time.Now()); late > 0 {
				newTrail(app, stateDir).put(lateEnd(args[1], args[2:], answer, late))
			}
			e := json.NewEncoder(app.Out)
			e.SetEscapeHTML(false)
			return e.Encode(answer)
		},
	}
	stateFlag(cmd, &stateDir)
	return cmd
}

// doTask runs a command of this program in this process; words gets what it says meanwhile.
func doTask(ctx context.Context, app *cli.App, id string, args []string, words io.Writer) taskAnswer {
	out, said := &printed{most: maxPrinted}, &taskVoice{words: words}
	fmt.Fprintf(words, "powernode-agent %s\n", cli.Printable(strings.Join(args, " ")))
	inner := *app
	inner.Out, inner.Err, inner.Quiet, inner.Format = out, io.MultiWriter(said, app.Err), false, cli.JSON
	answer := taskAnswer{Task: id, Code: inner.Run(forTask(ctx), New(&inner), args), Result: out.result()}
	if answer.Code != cli.ExitOK {
		answer.Error, answer.Interrupted = said.failed().cut(), ctx.Err() != nil
	}
	return answer
}

// interruption is when a command was told to end.
type interruption struct {
	mu sync.Mutex
	at time.Time
}

// watch takes it down when ctx ends, until stop is called.
func (i *interruption) watch(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.at = time.Now()
	})
}

// late returns how long ago it was, where the service doesn't wait for the end any more; else 0.
func (i *interruption) late(now time.Time) time.Duration {
	i.mu.Lock()
	defer i.mu.Unlock()
	// The service began to wait a moment before: rather told twice than not at all.
	if since := now.Sub(i.at); !i.at.IsZero() && since >= commandWindUp-time.Second {
		return since
	}
	return 0
}

// lateEnd is the record of a command that has ended long after it was told to, and after its task.
func lateEnd(id string, args []string, answer taskAnswer, late time.Duration) event.Audit {
	a := event.Audit{Who: theAgent, Task: id, Command: strings.Join(args, " "), At: time.Now()}
	a.Result = fmt.Sprintf("its command has ended %s after it was told to: ", late.Round(time.Second))
	if _, err := answer.outcome(); err != nil {
		a.Failed, a.Result = true, a.Result+err.Error()
		return a
	}
	a.Result += "complete all the same"
	return a
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

// patiently opens what only one may have at a time. For a task it waits until that is free: the service looks into it for a moment, now and then,
// also after awaitChange has found it free.
func patiently[T any](ctx context.Context, open func() (T, func(), error)) (T, func(), error) {
	for {
		v, end, err := open()
		if err == nil || fault.KindOf(err) != fault.Retry || ctx.Value(forTaskKey{}) == nil {
			return v, end, err
		}
		select {
		case <-ctx.Done():
			return v, end, err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// awaitChange waits until nobody changes what the node runs: a task has the time that a person hasn't.
func awaitChange(ctx context.Context, stateDir string, words io.Writer) error {
	for said := false; ; said = true {
		lock, err := reconcile.Lock(stateDir)
		if err == nil {
			return lock.Unlock()
		}
		if fault.KindOf(err) != fault.Retry {
			return nil // the command says what is wrong with it
		}
		if !said {
			fmt.Fprintln(words, "waits for somebody else who changes this node: "+cli.Printable(err.Error()))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}
