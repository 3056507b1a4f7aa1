package nodeapi

import "time"

// PathEvents takes what a node has to tell, below the platform's URL.
const PathEvents = Base + "/events"

// CodeEventRefused (422) says that one of the events of this call can't be taken, ever. Nothing but this code has a node give an event up: any
// other answer may be somebody else's than the platform's.
const CodeEventRefused Code = "EVENT_REFUSED"

// Bounds of events: how many one call brings, bytes of a text, of a kind, of a field's name and value, and how many fields.
const (
	MaxEvents          = 100
	MaxEventText       = 1 << 10
	MaxEventKind       = 64
	MaxEventFields     = 16
	MaxEventFieldName  = 64
	MaxEventFieldValue = 256
)

// Severity says how much an event matters.
type Severity string

// The severities, the least first.
const (
	SeverityInfo    Severity = "info"
	SeverityWarning Severity = "warning"
	SeverityError   Severity = "error"
)

// Event is something that happened on a node.
type Event struct {
	// ID is a UUID of the node's own making: the same event has the same ID however often it is sent.
	ID string `json:"id"`
	// At is when it happened, by the node's clock.
	At time.Time `json:"at"`
	// Kind is a word such as "task.done": lower-case letters, digits, dots, hyphens and underscores.
	Kind     string   `json:"kind"`
	Severity Severity `json:"severity"`
	Text     string   `json:"text"`
	// Fields are short printable strings by name.
	Fields map[string]string `json:"fields,omitempty"`
}

// EventsRequest brings events, the oldest first.
type EventsRequest struct {
	Events []Event `json:"events"`
}

// EventsResponse acknowledges events. Either all of a call are kept, or none.
type EventsResponse struct {
	// Accepted is how many the platform has from now on, those that it had already included.
	Accepted int `json:"accepted"`
}
