package agentcli

import (
	"context"
	"log/slog"
	"slices"
	"sync"

	"github.com/powernode/powernode-agent/internal/event"
	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// serviceWatch tells the platform when something is wrong with the services of modules: in each heartbeat while it lasts, and as an event
// when it begins and ends.
type serviceWatch struct {
	// look returns what is wrong, each in a sentence, always in the same words.
	look func(ctx context.Context) []string
	put  func(event.Event) error
	log  *slog.Logger

	mu    sync.Mutex
	wrong []string
}

// wrongServices is the look at the machine.
func wrongServices(ctx context.Context) []string {
	var d statusDoc
	d.services(ctx, runRoot)
	return d.Reasons
}

// once looks, and is never done.
func (w *serviceWatch) once(ctx context.Context) (bool, error) {
	wrong := w.look(ctx)
	if ctx.Err() == nil {
		w.found(wrong)
	}
	return false, nil
}

func (w *serviceWatch) found(wrong []string) {
	slices.Sort(wrong)
	w.mu.Lock()
	before := w.wrong
	w.wrong = wrong
	w.mu.Unlock()
	for _, text := range wrong {
		if !slices.Contains(before, text) {
			w.log.Warn("a service of a module isn't as it should be", "service", text)
			w.tell(event.Event{Kind: "service.wrong", Severity: nodeapi.SeverityWarning, Text: text})
		}
	}
	for _, text := range before {
		if !slices.Contains(wrong, text) {
			w.log.Info("a service of a module is as it should be again", "service", text)
			w.tell(event.Event{Kind: "service.right", Severity: nodeapi.SeverityInfo, Text: "no longer: " + text})
		}
	}
}

func (w *serviceWatch) tell(e event.Event) {
	if err := w.put(e); err != nil {
		w.log.Warn("an event is in this log alone", "error", err)
	}
}

// Remarks says what is wrong now.
func (w *serviceWatch) Remarks() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.wrong)
}
