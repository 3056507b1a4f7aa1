package reconcile

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/ociimage"
)

// TestBriefIsBrief: a machine with something to run waits no longer than a quarter of a minute for the
// platform, one without for minutes.
func TestBriefIsBrief(t *testing.T) {
	b := Brief()
	if most := b.Retry.Elapsed + b.HTTP.Timeout; most > 15*time.Second || b.Retry.Elapsed == 0 || b.HTTP.Timeout == 0 || b.Look == 0 || b.Look > 15*time.Second {
		t.Errorf("%s, and %s for a module", most, b.Look)
	}
	if l := Long(); l.Retry.Elapsed < 5*time.Minute || l.Retry.Tries != 0 || l.HTTP.Timeout != 0 || l.Look != 0 {
		t.Errorf("%+v", l)
	}
}

// silent is a registry that never answers.
type silent struct{ ociimage.Source }

func (silent) Resolve(ctx context.Context, _ ociimage.Reference, _ string) (*ociimage.Image, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestARegistryThatIsSilent is an outage, and the other modules aren't asked for.
func TestARegistryThatIsSilent(t *testing.T) {
	w := newWorld(t)
	w.module("base", "1", nil)
	w.module("app", "1", nil)
	r := w.reconciler(func(c *Config) { c.Source, c.Patience.Look = silent{w.layout}, 20*time.Millisecond })
	plan, err := r.Fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = plan.Err()
	if fault.KindOf(err) != fault.Retry || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "not within 20ms") || len(plan.Failed) != 2 ||
		!strings.Contains(err.Error(), "app wasn't asked for") {
		t.Errorf("%v", err)
	}
}
