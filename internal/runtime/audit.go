package runtime

import (
	"log/slog"
	"time"

	"github.com/powernode/powernode-agent/internal/event"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/task"
)

// AuditTasks returns what hears of tasks (TasksConfig.Told) and writes an audit record of each into the log and, by put, into the
// queue: when it is about to be begun, and when its outcome is on the disk. privileged, if not nil, says which tasks
// are worth one; log takes what goes on.
func AuditTasks(put func(event.Event) error, privileged func(task.Task) bool, log *slog.Logger) func(task.Record) {
	return func(r task.Record) {
		if privileged != nil && !privileged(r.Task) {
			return
		}
		a := auditOf(r)
		log.Info("audit", "who", a.Who, "task", a.Task, "command", a.Command, "result", a.Result)
		if err := put(a.Event()); err != nil {
			log.Error("an audit record is in this log alone", "task", a.Task, "error", err, "hint", fault.HintOf(err))
		}
	}
}

// auditOf returns the record of what a task has come to.
func auditOf(r task.Record) event.Audit {
	a := event.Audit{Who: r.Task.RequestedBy, Task: r.Task.ID, Command: string(r.Task.Kind), At: r.BegunAt, Result: "begun"}
	// Options of a kind that nobody knows may hold anything, secrets too.
	if _, known := r.Task.Kind.Traits(); known && len(r.Task.Options) > 0 {
		a.Command += " " + string(r.Task.Options)
	}
	// The same run of the same task is the same record, also after the agent was killed while it wrote it.
	a.Key = r.Task.ID + "\n" + r.BegunAt.UTC().Format(time.RFC3339Nano) + "\n" + string(r.Phase)
	if r.Outcome == nil {
		return a
	}
	a.At, a.Result = r.EndedAt, "complete"
	if !r.Outcome.Success {
		a.Failed, a.Result = true, "failed: "+string(r.Outcome.Code)+": "+r.Outcome.Error
	}
	return a
}
