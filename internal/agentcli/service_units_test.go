package agentcli

import (
	"context"
	"log/slog"
	"slices"
	"testing"

	"github.com/powernode/powernode-agent/internal/event"
)

// TestServiceWatch: what begins and ends is an event each, what lasts a remark.
func TestServiceWatch(t *testing.T) {
	var wrong, told []string
	w := &serviceWatch{
		look: func(context.Context) []string { return slices.Clone(wrong) },
		put:  func(e event.Event) error { told = append(told, e.Kind+" "+e.Text); return nil },
		log:  slog.New(slog.DiscardHandler),
	}
	for _, c := range []struct{ wrong, told []string }{
		{nil, nil},
		{[]string{"b failed", "a failed"}, []string{"service.wrong a failed", "service.wrong b failed"}},
		{[]string{"a failed", "b failed"}, nil},
		{[]string{"b failed"}, []string{"service.right no longer: a failed"}},
		{nil, []string{"service.right no longer: b failed"}},
	} {
		wrong, told = c.wrong, nil
		if done, err := w.once(t.Context()); done || err != nil {
			t.Error(done, err)
		}
		slices.Sort(wrong)
		if !slices.Equal(told, c.told) || !slices.Equal(w.Remarks(), wrong) {
			t.Errorf("%v: %v, %v", c.wrong, told, w.Remarks())
		}
	}
}
