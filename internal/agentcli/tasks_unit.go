package agentcli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/nodeapi"
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

// codePartial is the code of a task that was done in part.
const codePartial nodeapi.FailCode = "PARTIAL"

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

// do runs the command ARGS as a unit for a task, or finds what became of it where it was begun before. What ctx ends for is told to
// the command, which goes on where it can't stop; where the service ends, nothing is told: the next one finds the answer.
func (o *outside) do(ctx context.Context, unit, id string, again bool, args []string) (*taskAnswer, error) {
	if err := o.free(ctx, unit); err != nil {
		return nil, err
	}
	if again {
		if answer := o.answer(unit); answer != nil && answer.Task == id {
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
			// One that ends just now.
		case err != nil && ctx.Err() != nil:
			return nil, context.Cause(ctx)
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
		select {
		case <-ctx.Done():
			return fmt.Errorf("an earlier command goes on: %w", context.Cause(ctx))
		case <-time.After(commandLook):
		}
	}
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

// outcome returns what a task has come to by the answer of its command.
func (a *taskAnswer) outcome() (task.Result, error) {
	result := task.Result{}
	if len(a.Result) > 0 {
		result.Data = a.fitting()
	}
	if a.Code == cli.ExitOK {
		return result, nil
	}
	if a.Error == nil {
		return result, a.part()
	}
	kind := fault.Broken
	for _, k := range []fault.Kind{fault.Retry, fault.Refuse} {
		if a.Error.Kind == k.String() {
			kind = k
		}
	}
	return result, fault.New(kind, fault.General, a.Error.Hint, "%s", a.Error.Message)
}

// part is the error of a command that has said by its result what it lacks.
func (a *taskAnswer) part() error {
	var doc struct {
		Outcome string `json:"outcome"`
		Failed  []struct {
			Name, Version, Reason string
		} `json:"failed"`
		Undone []string `json:"undone"`
		Parts  []struct {
			Part, Result, Error string
		} `json:"parts"`
	}
	text := fmt.Sprintf("the command ends with exit code %d", a.Code)
	if a.Code == cli.ExitPartial {
		text = "it is done in part"
	}
	// A result that says nothing of this kind is told as it is.
	if err := json.Unmarshal(a.Result, &doc); err == nil {
		var why []string
		if doc.Outcome == string(change.TakenBack) {
			why = append(why, "what went live wasn't confirmed, and was taken back")
		}
		for _, f := range doc.Failed {
			why = append(why, strings.TrimSpace(f.Name+" "+f.Version)+": "+f.Reason)
		}
		why = append(why, doc.Undone...)
		for _, p := range doc.Parts {
			if p.Error != "" {
				why = append(why, p.Part+": "+p.Error)
			}
		}
		if len(why) > 0 {
			text += ": " + strings.Join(why, "; ")
		}
	}
	err := errors.New(text)
	if a.Code == cli.ExitPartial {
		return task.Fail(codePartial, err)
	}
	return task.Fail(nodeapi.FailFailed, err)
}

// fitting returns the result as the platform takes it: what is long and can be had again is left out of one that is too long.
func (a *taskAnswer) fitting() any {
	if len(a.Result) <= nodeapi.MaxTaskResult {
		return a.Result
	}
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(a.Result, &doc); err != nil {
		return a.Result
	}
	return shorten(doc, "plan", "modules", "generations", "objects", "services")
}

// shorten leaves fields out of a document, in that order, until it can be told.
func shorten(doc map[string]json.RawMessage, names ...string) map[string]json.RawMessage {
	var left []string
	for _, name := range names {
		if text, err := json.Marshal(doc); err != nil || len(text) <= nodeapi.MaxTaskResult {
			break
		}
		if _, ok := doc[name]; !ok {
			continue
		}
		delete(doc, name)
		left = append(left, name)
		if text, err := json.Marshal(left); err == nil {
			doc["left_out"] = text
		}
	}
	return doc
}
