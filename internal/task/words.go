package task

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// Bounds of names, in bytes: of a task's ID, of a lease, of a kind and of a code.
const (
	maxID    = 128
	maxLease = 128
	maxWord  = 64
)

// Task is one unit of work as the platform leased it.
type Task struct {
	// ID names the task, Lease this lease of it: the fencing token.
	ID    string           `json:"id"`
	Lease string           `json:"lease"`
	Kind  nodeapi.TaskKind `json:"kind"`
	// Options are a JSON object of the kind's own; nil for none.
	Options json.RawMessage `json:"options,omitempty"`
	// Attempt is 1, and one more for each earlier lease under which the task was begun and came to no end.
	Attempt   int       `json:"attempt"`
	CreatedAt time.Time `json:"created_at,omitzero"`
	// RequestedBy is who asked the platform for it.
	RequestedBy string `json:"requested_by,omitempty"`
	// LeaseTime is how long the lease is good for from when it was asked for.
	LeaseTime time.Duration `json:"-"`
	// Deadline bounds one run, beside the handler's own bound; 0 is none.
	Deadline time.Duration `json:"deadline,omitempty"`
	// Run counts on this node how often the task was begun, this time included: more than 1 is a run that follows one
	// whose end isn't known. Only a handler is told.
	Run int `json:"-"`
}

// Again says what becomes of a task that was begun and whose end isn't known: the agent was killed, the power
// was cut, or the lease ended first.
type Again uint8

// The declarations. The zero value is the careful one.
const (
	// AtMostOnce fails it with nodeapi.FailInterrupted.
	AtMostOnce Again = iota
	// Idempotent begins it again: twice is the same as once.
	Idempotent
	// Resumable begins it again, and the handler goes on where it was: Task.Run says that it isn't the first time.
	Resumable
)

// Handler does the tasks of one kind.
type Handler struct {
	Kind nodeapi.TaskKind
	// Class says what may run beside it; "" is what nodeapi says of the kind.
	Class nodeapi.TaskClass
	Again Again
	// Timeout bounds one run, beside the deadline that comes with a task; 0 is what nodeapi says of the kind.
	Timeout time.Duration
	// Run does the task. When ctx ends it ends its work and returns; context.Cause tells why: ErrCancelled,
	// ErrLeaseLost, ErrTimeout or ErrEnding. A Result beside an error is told, too.
	Run func(ctx context.Context, t Task, out Out) (Result, error)
}

// Out takes what a task says while it runs. It may be used by several goroutines, and never waits for anybody.
type Out interface {
	// Writer takes output: text, of which the last bytes are kept. It returns no error.
	io.Writer
	// Progress says how far the task is, in percent, and what it does.
	Progress(percent int, message string)
}

// Result is what a handler comes back with.
type Result struct {
	// Data is encoded as JSON, an object of at most nodeapi.MaxTaskResult bytes; nil is an empty object.
	Data any
	// Restart, if not nil, has the machine restart, and is called once the platform has heard of it. The task is complete when
	// another boot than this one runs; Data isn't told then.
	Restart func(ctx context.Context) error
}

// Why a task's context ended.
var (
	ErrCancelled = errors.New("the platform cancelled the task")
	ErrLeaseLost = errors.New("the task's lease has ended, and the platform gives no other")
	ErrTimeout   = errors.New("the task took longer than it may")
	ErrEnding    = errors.New("the agent ends")
)

// CodeUnavailable is the code of what may succeed later, beside those of nodeapi.
const CodeUnavailable nodeapi.FailCode = "UNAVAILABLE"

// failure is an error with the code that the platform is told.
type failure struct {
	code nodeapi.FailCode
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// Fail gives an error of a handler the code that the platform is told: at most 64 capital letters, digits and underscores.
func Fail(code nodeapi.FailCode, err error) error { return &failure{code, err} }

// CodeOf returns the code that an error of a handler is told by: that of Fail, else one for its fault.Kind.
func CodeOf(err error) nodeapi.FailCode {
	if f, ok := errors.AsType[*failure](err); ok && isToken(string(f.code), maxWord) {
		return f.code
	}
	switch fault.KindOf(err) {
	case fault.Refuse:
		return nodeapi.FailRefused
	case fault.Retry:
		return CodeUnavailable
	case fault.Broken:
	}
	return nodeapi.FailFailed
}

// class returns what may run beside a task of the handler.
func (h Handler) class() nodeapi.TaskClass {
	if h.Class != "" {
		return h.Class
	}
	traits, _ := h.Kind.Traits()
	return traits.Class
}

// limit returns how long one run of the task may take.
func (h Handler) limit(t Task) time.Duration {
	limit := h.Timeout
	if limit <= 0 {
		traits, _ := h.Kind.Traits()
		limit = traits.Deadline
	}
	if t.Deadline > 0 {
		limit = min(limit, t.Deadline)
	}
	return limit
}
