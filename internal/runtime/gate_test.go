package runtime

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// gate does what a test tells it to.
type gate func(ctx context.Context, reached func() bool, alive func(time.Duration))

func (g gate) Run(ctx context.Context, reached func() bool, alive func(time.Duration)) {
	g(ctx, reached, alive)
}

// TestGateHearsOfThePlatform: the gate knows of the first heartbeat that is acknowledged, and its end ends nothing else.
func TestGateHearsOfThePlatform(t *testing.T) {
	bubble(t, func(t *testing.T, proc string) {
		begun := time.Now()
		var heard atomic.Int64
		n := serve(t, proc, func(n *node) {
			n.config.Watchdog = time.Minute
			n.platform.fail = fault.New(fault.Retry, fault.Platform, "", "no route")
			n.config.Gate = gate(func(ctx context.Context, reached func() bool, alive func(time.Duration)) {
				for !reached() && ctx.Err() == nil {
					alive(time.Second)
					time.Sleep(time.Second)
				}
				heard.Store(int64(time.Since(begun)))
			})
		})
		time.Sleep(3 * time.Minute)
		n.set(func() { n.platform.fail = nil })
		time.Sleep(10 * time.Minute)
		if after := time.Duration(heard.Load()); after < 3*time.Minute || after > 6*time.Minute {
			t.Errorf("it heard after %s", after)
		}
		if _, last := n.manager.has("WATCHDOG=1"); last < 12*time.Minute {
			t.Errorf("the last sign of life came after %s", last)
		}
		if _, err := n.stop(t); err != nil {
			t.Error(err)
		}
	})
}

// TestGateThatPanics: the service goes on.
func TestGateThatPanics(t *testing.T) {
	bubble(t, func(t *testing.T, proc string) {
		n := serve(t, proc, func(n *node) {
			n.config.Watchdog = time.Minute
			n.config.Gate = gate(func(context.Context, func() bool, func(time.Duration)) { panic("a defect") })
		})
		time.Sleep(10 * time.Minute)
		if n.platform.count() < 10 || !strings.Contains(n.log.String(), "the health gate panicked") {
			t.Errorf("%d heartbeats\n%s", n.platform.count(), n.log.String())
		}
		if _, last := n.manager.has("WATCHDOG=1"); last < 9*time.Minute {
			t.Errorf("the last sign of life came after %s", last)
		}
		n.stop(t)
	})
}

// TestGateThatIsStuck: systemd gets to restart the service.
func TestGateThatIsStuck(t *testing.T) {
	bubble(t, func(t *testing.T, proc string) {
		n := serve(t, proc, func(n *node) {
			n.config.Watchdog = time.Minute
			n.config.Gate = gate(func(ctx context.Context, _ func() bool, alive func(time.Duration)) {
				alive(time.Second)
				<-ctx.Done()
			})
		})
		time.Sleep(10 * time.Minute)
		if _, last := n.manager.has("WATCHDOG=1"); last > 2*time.Minute {
			t.Errorf("the last sign of life came after %s", last)
		}
		n.stop(t)
	})
}
