package event

import (
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// AuditKind is the kind of an audit record.
const AuditKind = "audit"

// Audit is the record of a privileged action: one when it is begun, and one when its result is known.
type Audit struct {
	// Who asked for it: the operator as the platform names them, or a user of the machine.
	Who string
	// Task is the ID of the task; "" for what was asked on the machine itself.
	Task string
	// Command is what is done, with what is said beside: "attach nginx".
	Command string
	// Result is what came of it, "begun" for nothing yet; Failed says that this isn't what was asked for.
	Result string
	Failed bool
	At     time.Time
	// Key makes the same record of it, however often it is written; "" makes another each time.
	Key string
}

// Event returns the record as an event.
func (a Audit) Event() Event {
	severity := nodeapi.SeverityInfo
	if a.Failed {
		severity = nodeapi.SeverityWarning
	}
	fields := map[string]string{"command": a.Command, "result": a.Result}
	if a.Who != "" {
		fields["who"] = a.Who
	}
	if a.Task != "" {
		fields["task"] = a.Task
	}
	who := a.Who
	if who == "" {
		who = "somebody"
	}
	key := a.Key
	if key != "" {
		key = "audit\n" + key
	}
	return Event{
		Kind: AuditKind, Severity: severity, Text: who + ": " + a.Command + ": " + a.Result, Fields: fields, At: a.At, Audit: true, Key: key,
	}
}
