package nodehttp

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// StatusError is what the platform said when it refused or failed a call.
type StatusError struct {
	// Status is the HTTP status, Code the envelope's code or "".
	Status int
	Code   nodeapi.Code
	// Message is the envelope's error text, cleaned; "" where there was none.
	Message string
	// RetryAfter is how long the platform asks to wait, at most 10 minutes; 0 where it doesn't say.
	RetryAfter time.Duration
}

// Error returns the status, the code and the text.
func (e *StatusError) Error() string {
	s := "the platform answered " + strconv.Itoa(e.Status)
	if e.Code != "" {
		s += " " + string(e.Code)
	} else if t := http.StatusText(e.Status); t != "" {
		s += " " + t
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// RetryAfter returns how long the platform asked to wait, or 0.
func RetryAfter(err error) time.Duration {
	if e, ok := errors.AsType[*StatusError](err); ok {
		return e.RetryAfter
	}
	return 0
}

// StatusOf returns the HTTP status of a refused or failed call, or 0 where no answer came.
func StatusOf(err error) int {
	if e, ok := errors.AsType[*StatusError](err); ok {
		return e.Status
	}
	return 0
}

// CodeOf returns the envelope's code of a refused or failed call, or "".
func CodeOf(err error) nodeapi.Code {
	if e, ok := errors.AsType[*StatusError](err); ok {
		return e.Code
	}
	return ""
}

// ErrValidity says that the server's certificate isn't valid by the clock of the connection. Either may be wrong.
var ErrValidity = errors.New("the server's certificate isn't valid at this time")

// validity is a text for ErrValidity that says more.
type validity string

func (v validity) Error() string     { return string(v) }
func (v validity) Is(err error) bool { return err == ErrValidity }

// ErrOwnCertificate is in the chain where the platform ended the handshake because of the node's certificate: it has
// ended by the platform's clock, or the CA that issued it doesn't count there any more.
var ErrOwnCertificate = errors.New("the platform refuses this node's certificate")

var (
	errTimeout = errors.New("call timed out")
	errStalled = errors.New("call stalled")
	errBroken  = errors.New("connections broke")
)
