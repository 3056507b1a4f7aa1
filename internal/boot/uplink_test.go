package boot

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/powernode/powernode-agent/internal/bootconfig"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/network"
	"github.com/powernode/powernode-agent/internal/store"
)

// slowNetwork can be used after some time, and has a carrier or not.
type slowNetwork struct {
	after   time.Duration
	carrier bool
}

func (n slowNetwork) State() network.State {
	return network.State{Links: []network.Link{{Name: "eth0", Carrier: n.carrier}}}
}

func (n slowNetwork) Wait(ctx context.Context) (network.State, error) {
	select {
	case <-time.After(n.after):
		return n.State(), nil
	case <-ctx.Done():
		return n.State(), context.Cause(ctx)
	}
}

func (slowNetwork) Close() {}

func TestHowLongTheNetworkIsWaitedFor(t *testing.T) {
	for _, c := range []struct {
		name    string
		net     slowNetwork
		warm    bool
		setting time.Duration
		waits   time.Duration
		word    string
	}{
		{"cold waits as long as it takes", slowNetwork{2 * time.Minute, true}, false, 0, 2 * time.Minute, ""},
		{"warm and quick", slowNetwork{2 * time.Second, true}, true, 0, 2 * time.Second, ""},
		{"warm and slow", slowNetwork{time.Minute, true}, true, 0, networkWarm, "not within 10s"},
		{"warm without a cable", slowNetwork{time.Minute, false}, true, 0, carrierWarm, "no link has a carrier"},
		{"warm, as the settings say", slowNetwork{time.Minute, true}, true, 20 * time.Second, 20 * time.Second, "not within 20s"},
		{"warm, as the settings say, without a cable", slowNetwork{time.Minute, false}, true, 2 * time.Second, 2 * time.Second, "no link has a carrier"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBoot(Config{Now: time.Now, Console: io.Discard})
				b.uplink = c.net
				b.settings.NetworkTimeout = c.setting
				if c.warm {
					b.plan.known.Current = 1
					b.plan.known.Generations = []store.Generation{{Number: 1}}
				}
				begun := time.Now()
				err := b.needNetwork(t.Context())
				if time.Since(begun) != c.waits {
					t.Errorf("waited %s", time.Since(begun))
				}
				switch {
				case c.word == "" && err != nil:
					t.Error(err)
				case c.word != "" && (fault.KindOf(err) != fault.Retry || fault.AreaOf(err) != fault.Platform || !strings.Contains(err.Error(), c.word)):
					t.Errorf("%v", err)
				}
			})
		})
	}
}

func TestNoNetworkIsSaid(t *testing.T) {
	b := newBoot(Config{Now: time.Now, Console: io.Discard})
	if err := b.needNetwork(t.Context()); err != nil {
		t.Errorf("the system's own: %v", err)
	}
	b.settings.Network = bootconfig.Off
	if err := b.needNetwork(t.Context()); fault.KindOf(err) != fault.Retry || fault.HintOf(err) == "" {
		t.Errorf("off: %v", err)
	}
	if said, err := b.startNetwork(t.Context()); err != nil || !strings.HasPrefix(said, "off") || b.uplink != nil {
		t.Errorf("%s, %v", said, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b.settings.Network, b.uplink = bootconfig.Auto, slowNetwork{time.Hour, true}
	if err := b.needNetwork(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}
