package boot

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/bootconfig"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/network"
)

// How long a boot waits for the network where the settings don't say: long where there is nothing to
// run without it, briefly where there is, and hardly where no cable is plugged in.
const (
	networkCold = 3 * time.Minute
	networkWarm = 10 * time.Second
	carrierWarm = 4 * time.Second
)

// uplink is the network of an initramfs.
type uplink interface {
	Wait(ctx context.Context) (network.State, error)
	State() network.State
	Close()
}

// startNetwork begins to bring the network up in the background, and waits for nothing.
func (b *boot) startNetwork(ctx context.Context) (string, error) {
	if b.settings.Network == bootconfig.Off {
		return "off, as the settings say", nil
	}
	if b.uplink != nil {
		return "already begun", nil
	}
	if b.mode == Sysroot {
		if state, err := network.Existing(); err == nil && state.Usable {
			return "already up: " + linkWords(state), nil
		}
	}
	params := make([]network.Param, len(b.cmdline))
	for i, p := range b.cmdline {
		params[i] = network.Param{Name: p.Name, Value: p.Value}
	}
	config, err := network.Parse(params)
	if err != nil {
		// A machine that may need no network isn't stopped by a mistake in how to get one.
		b.remark(err.Error()+"; asking by DHCP on every link", fault.HintOf(err))
		config = network.Config{}
	}
	deadline := b.settings.NetworkTimeout
	if deadline == 0 {
		deadline = networkCold
	}
	// It lives longer than the stage.
	b.uplink = network.Start(context.WithoutCancel(ctx), config, network.Options{
		Deadline: deadline, Console: func(line string) { b.voice.say("          %s", line) },
	})
	return "begun in the background", nil
}

// needNetwork waits until the network can be used. A boot that has something to run without it waits
// briefly.
func (b *boot) needNetwork(ctx context.Context) error {
	if b.settings.Network == bootconfig.Off && b.mode != Namespace {
		return fault.New(fault.Retry, fault.Platform, "take away powernode.network=off", "the network is off, as the settings say")
	}
	if b.uplink == nil {
		return nil // the system's own
	}
	start := time.Now()
	state, err := b.waitNetwork(ctx)
	if err != nil {
		return err
	}
	if took := time.Since(start); took > time.Second {
		b.voice.say("          waited %s for the network: %s", took.Round(100*time.Millisecond), linkWords(state))
	}
	return nil
}

func (b *boot) waitNetwork(ctx context.Context) (network.State, error) {
	if len(b.candidates()) == 0 {
		return b.uplink.Wait(ctx)
	}
	patience := b.settings.NetworkTimeout
	if patience == 0 {
		patience = networkWarm
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errNetworkPatience(patience))
	defer cancel()
	// Whoever has no cable won't plug one in while a machine that could run waits for it.
	unplugged := time.AfterFunc(min(carrierWarm, patience), func() {
		if !carrier(b.uplink.State()) {
			cancel()
		}
	})
	defer unplugged.Stop()
	state, err := b.uplink.Wait(ctx)
	if err != nil && ctx.Err() != nil {
		why := errors.New("no link has a carrier")
		if carrier(state) {
			why = context.Cause(ctx)
		}
		return state, fault.New(fault.Retry, fault.Platform, "check the cable, the network card and its server (DHCP)", "the network isn't up: %w", why)
	}
	return state, err
}

func errNetworkPatience(d time.Duration) error { return fmt.Errorf("not within %s", d) }

func carrier(s network.State) bool {
	for _, l := range s.Links {
		if l.Carrier {
			return true
		}
	}
	return false
}

// linkWords says which addresses there are.
func linkWords(s network.State) string {
	var words []string
	for _, l := range s.Links {
		for _, a := range l.Addresses {
			words = append(words, l.Name+" "+a.Prefix.String())
		}
	}
	return strings.Join(words, ", ")
}

func (b *boot) closeNetwork() {
	if b.uplink != nil {
		b.uplink.Close()
		b.uplink = nil
	}
}
