package enroll

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// The bounds of the wait before an operator's approval is asked for again, and what is taken where the
// platform asks for nothing.
const (
	minPoll     = 5 * time.Second
	maxPoll     = 10 * time.Minute
	defaultPoll = 30 * time.Second
)

// Waiting is the error of a renewal that an operator is to approve. Its kind is fault.Retry.
type Waiting struct {
	// Message is what the platform says is to be done, on one line.
	Message string
	// Again is when to ask again, from 5 seconds to 10 minutes.
	Again time.Duration
}

// Error says what the renewal waits for.
func (w *Waiting) Error() string { return "it waits for an operator: " + w.Message }

// AsWaiting returns the Waiting in an error, or nil.
func AsWaiting(err error) *Waiting {
	w, _ := errors.AsType[*Waiting](err)
	return w
}

func newWaiting(doing string, a nodeapi.RenewResponse) error {
	w := &Waiting{Message: oneLine(a.Message), Again: defaultPoll}
	if w.Message == "" {
		w.Message = "approve it with `powernode node approve`"
	}
	if a.PollAfterSeconds > 0 {
		w.Again = min(max(time.Duration(min(a.PollAfterSeconds, int(maxPoll/time.Second)))*time.Second, minPoll), maxPoll)
	}
	return fault.New(fault.Retry, fault.Platform, "approve it with `powernode node approve`, or "+hintToken, "%s: %w", doing, w)
}

// oneLine makes a text of the platform fit for the console.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if r := []rune(s); len(r) > 300 {
		s = fmt.Sprint(string(r[:300]), "…")
	}
	return strings.TrimSpace(s)
}
