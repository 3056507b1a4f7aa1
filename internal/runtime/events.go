package runtime

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/powernode/powernode-agent/internal/event"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// EventPlatform takes events, all or none. A *nodeclient.Client is one. The call is one attempt.
type EventPlatform interface {
	Events(ctx context.Context, events []nodeapi.Event) error
}

// EventQueue is what the node has to tell. A *event.Queue is one.
type EventQueue interface {
	// News has something in it when something was put into the queue since it was looked at.
	News() <-chan struct{}
	// Next returns the oldest events, the same again until Told or Refused.
	Next(most int) (event.Batch, error)
	Told(b event.Batch) error
	Refused(b event.Batch) error
}

// Events is the loop that tells the platform what happened on the node, each event until it is acknowledged. Queue, Platform
// and Log are required.
type Events struct {
	Queue    EventQueue
	Platform EventPlatform
	Log      *slog.Logger
	// Rand returns numbers of [0,1) to spread the intervals by; nil is math/rand.
	Rand func() float64
}

// How long a call with events may take, and one at the end of the service.
const (
	eventsTime     = 30 * time.Second
	lastEventsTime = 3 * time.Second
)

// Run implements Loop. At the end of ctx it tells once more what there is, where the platform took the last.
func (e Events) Run(ctx context.Context, alive func(time.Duration)) {
	if e.Rand == nil {
		e.Rand = rand.Float64
	}
	var pace event.Pace
	complaint := ""
	for ctx.Err() == nil {
		alive(choreTime)
		next, err := e.send(ctx, &pace, eventsTime)
		if ctx.Err() == nil {
			e.complain(&complaint, err)
		}
		e.wait(ctx, alive, next)
	}
	if !pace.Failing() {
		alive(choreTime)
		_, err := e.send(context.WithoutCancel(ctx), &pace, lastEventsTime)
		e.complain(&complaint, err)
	}
}

// wait waits until there is something to tell, or it may be told.
func (e Events) wait(ctx context.Context, alive func(time.Duration), next event.Next) {
	alive(next.Wait)
	news := e.Queue.News()
	if next.Patient {
		news = nil
	}
	timer := time.NewTimer(next.Wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return
	case <-timer.C:
		return
	case <-news:
	}
	gather := event.Gather(e.Rand())
	alive(gather)
	timer.Reset(gather)
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// send tells one batch, and returns what follows.
func (e Events) send(ctx context.Context, pace *event.Pace, limit time.Duration) (event.Next, error) {
	b, err := e.Queue.Next(pace.Most())
	if err != nil {
		return pace.Sent(1, false, event.Away, 0, e.Rand()), err
	}
	if len(b.Events) == 0 {
		return pace.Sent(0, false, event.Away, 0, 0), nil
	}
	call, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err = e.Platform.Events(call, b.Events)
	next := pace.Sent(len(b.Events), b.More, eventVerdict(err), nodehttp.RetryAfter(err), e.Rand())
	switch {
	case next.Told:
		err = e.Queue.Told(b)
	case next.Refused:
		e.Log.Error("the platform doesn't take an event: it is given up", "id", b.Events[0].ID, "kind", b.Events[0].Kind, "text", b.Events[0].Text, "error", err)
		err = e.Queue.Refused(b)
	case next.Less:
		return next, nil
	default:
		return next, err
	}
	if err != nil {
		// What the disk doesn't forget is told again; not at once.
		return pace.Sent(1, false, event.Away, 0, e.Rand()), err
	}
	return next, nil
}

// eventVerdict returns what a call came to. Nothing but the platform's own word on an event is one on it: whoever stands before the platform says 400 where a
// certificate is missing, or one line of its settings is wrong.
func eventVerdict(err error) event.Verdict {
	switch {
	case err == nil:
		return event.Took
	case nodehttp.CodeOf(err) == nodeapi.CodeEventRefused:
		return event.Not
	case nodehttp.StatusOf(err) == http.StatusRequestEntityTooLarge:
		return event.Large
	case denied(nodehttp.StatusOf(err)):
		return event.Denied
	}
	return event.Away
}

// denied tells whether a status says no, rather than not now.
func denied(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return status >= 400 && status < 500
}

// complain says once, until it changes, why nothing is told.
func (e Events) complain(last *string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != *last && text != "" {
		e.Log.Warn("the platform doesn't know of this node's events yet", "error", err, "hint", fault.HintOf(err))
	}
	*last = text
}
