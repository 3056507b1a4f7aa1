package agentcli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/task"
)

// The units that commands run in for the service: one for tasks, of which one changes the root at a time, and one for what the
// service does by itself.
const (
	taskUnit      = "task"
	reconcileUnit = "reconcile"
)

const (
	// commandLongest bounds a command; the context of a task ends sooner.
	commandLongest = 24 * time.Hour
	// commandWindUp is how long a command has to end that was asked to.
	commandWindUp = 45 * time.Second
	// commandLook is how often it is looked whether an earlier command has ended.
	commandLook = 250 * time.Millisecond
)

// outside runs commands of this program outside of the service, and finds what became of them.
type outside struct {
	programs outsidePrograms
	stateDir string
	// runDir is where the answers and the locks are.
	runDir string
	log    *slog.Logger
}

// outsidePrograms are programs that can be asked to end.
type outsidePrograms interface {
	programs
	// Interrupt sends SIGTERM to the program that runs as the unit.
	Interrupt(ctx context.Context, unit string) error
}

// do runs the command ARGS as a unit for a task, or finds what became of it where it was begun before; out, if not nil, gets what it says
// meanwhile. What ctx ends for is told to the command, which goes on where it can't stop, and the error says so then; where the service
// ends, nothing is told: the next one finds the answer.
func (o *outside) do(ctx context.Context, unit, id string, again bool, args []string, out io.Writer) (*taskAnswer, error) {
	if out != nil {
		defer o.follow(unit, id, out)()
	}
	if err := o.free(ctx, unit); err != nil {
		return nil, err
	}
	if again {
		if answer := o.cameTo(unit, id); answer != nil {
			o.log.Info("a command has ended while the service was away", "task", id, "unit", unitOf(unit), "exit_code", answer.Code)
			return answer, nil
		}
	}
	work, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	defer context.AfterFunc(ctx, func() { o.interrupt(ctx, work, unit, end) })()
	command := append([]string{doTaskName, "--state=" + o.stateDir, unit, id, "--"}, args...)
	for {
		answer := new(taskAnswer)
		code, err := privileged{systemd: o.programs, runDir: o.runDir, keep: true}.run(work, unit, commandLongest, answer, command...)
		switch {
		case errors.Is(err, systemd.ErrRuns):
			// One that ends just now, or one that hangs: there is no end to that by itself.
			if err := pause(ctx); err != nil {
				return nil, err
			}
		case err != nil && ctx.Err() != nil && ending(context.Cause(ctx)):
			return nil, context.Cause(ctx)
		case err != nil && ctx.Err() != nil:
			return nil, goesOn(unit)
		case err != nil:
			return nil, fault.New(fault.Retry, fault.Service, "journalctl -u "+unitOf(unit), "%w", err)
		case code != 0 || answer.Task != id:
			return nil, fault.New(fault.Broken, fault.Service, "journalctl -u "+unitOf(unit), "%s ends with exit code %d and says nothing of the task", unitOf(unit), code)
		default:
			return answer, nil
		}
		if err := o.free(ctx, unit); err != nil {
			return nil, err
		}
	}
}

// goesOn is what is said of a command that didn't end when it was told to.
func goesOn(unit string) error {
	return fault.New(fault.Retry, fault.Service, "an audit record says what it has come to, once it ends; journalctl -u "+unitOf(unit),
		"its command was told to end, and still goes on as %s", unitOf(unit))
}

// pause waits until it is time to look again for an earlier command.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("an earlier command goes on: %w", context.Cause(ctx))
	case <-time.After(commandLook):
		return nil
	}
}

// interrupt asks a command to end, as ctx did, and doesn't wait for it for ever.
func (o *outside) interrupt(ctx, work context.Context, unit string, end context.CancelCauseFunc) {
	cause := context.Cause(ctx)
	if ending(cause) {
		end(cause)
		return
	}
	call, cancel := context.WithTimeout(work, commandWindUp)
	defer cancel()
	if err := o.programs.Interrupt(call, unitOf(unit)); err != nil && work.Err() == nil {
		o.log.Warn("a command can't be asked to end", "unit", unitOf(unit), "error", err)
	}
	<-call.Done()
	end(cause)
}

// ending tells whether it is the service that ends, and not what it was asked for.
func ending(cause error) bool {
	return errors.Is(cause, task.ErrEnding) || errors.Is(cause, context.Canceled)
}

// free waits until no command runs as the unit.
func (o *outside) free(ctx context.Context, unit string) error {
	for {
		unlock, err := lockTask(o.runDir, unit)
		if err == nil {
			unlock()
			return nil
		}
		if fault.KindOf(err) != fault.Retry {
			return err
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// cameTo returns what the command of a task has come to by itself, nil for nothing. One that ended because it was told to has come to
// nothing: whoever asks again is to have it done.
func (o *outside) cameTo(unit, id string) *taskAnswer {
	answer := o.answer(unit)
	// By the exit code alone: an agent of before says no more.
	if answer == nil || answer.Task != id || answer.Interrupted || answer.Code == cli.ExitInterrupted {
		return nil
	}
	return answer
}

// answer returns what the last command of the unit has said, nil for nothing.
func (o *outside) answer(unit string) *taskAnswer {
	dir, err := durable.OpenDir(o.runDir, nil)
	if err != nil {
		return nil
	}
	defer dir.Close()
	answer := new(taskAnswer)
	if err := dir.ReadJSON(answerOf(unit), answerMax, answer); err != nil {
		return nil // it was cut off, or never said
	}
	return answer
}
