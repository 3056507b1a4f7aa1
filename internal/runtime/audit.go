package runtime

import (
	"encoding/json"
	"log/slog"
	"time"

	"github.com/powernode/powernode-agent/internal/event"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
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
	if options := auditOptions(r.Task); options != "" {
		a.Command += " " + options
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

// auditOptions returns what a record says of a task's options, "" for nothing: those that a kind may have. Whatever else is in them, and anything of
// a kind that nobody knows, may be a secret: the record is written before the task has looked at them.
func auditOptions(t task.Task) string {
	if _, _, known, _ := nodeapi.Command(string(t.Kind)); !known || len(t.Options) == 0 {
		return ""
	}
	var o struct {
		nodeapi.TaskOptions
		// Unit is what commands of the older platform name.
		Unit string `json:"unit,omitempty"`
	}
	if err := json.Unmarshal(t.Options, &o); err != nil {
		return "(options that can't be read)"
	}
	text, err := json.Marshal(o)
	if err != nil || string(text) == "{}" {
		return ""
	}
	return string(text)
}
