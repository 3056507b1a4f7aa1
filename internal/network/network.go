// Package network brings the network up in an initramfs, where nobody else does: by what the kernel
// command line says (Parse), else by DHCP for IPv4 and by what IPv6 routers say, on every physical link
// that has a carrier, links that appear later included. It keeps the leases for as long as it runs, and
// writes the resolver's configuration.
//
// It promises that Start doesn't wait and Wait returns as soon as one link can be used; that every wait
// ends at a deadline with an error that names what was missing; that the console says what is being
// waited for; and that Close ends all of its goroutines and leaves addresses and routes in
// place for the system that is started next, which finds its DNS servers by itself: the resolver's
// configuration is the initramfs's own. Decisions are pure functions of what the kernel and the
// servers said (judge, leaseFrom4, leaseFrom6, describe); kernel and dhcp4, dhcp6 are the thin edges.
//
// A panic in reading what came from a link ends neither the process nor the attempts.
//
// It trusts the kernel and the kernel command line. It does not trust DHCP servers, routers and anybody
// else on a link: they are unauthenticated by nature, so what they say is bounded and checked for form
// (addresses, routes, names, lifetimes, MTU), and may send packets astray but can't do more than that.
// Who really answers is TLS's and the signatures' to find out.
package network

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Options are what Start needs beside the configuration. The zero value will do.
type Options struct {
	// Console gets a line, without its end, whenever what is waited for changes; nil drops them.
	// It is called from one goroutine at a time.
	Console func(line string)
	// Deadline is how long after Start Wait gives up; 0 is 60 seconds. The attempts go on all the same.
	Deadline time.Duration
	// Settle is how long after Start a machine without any link is believed to have none; 0 is 5 s.
	Settle time.Duration
	// Grace is how long a network of IPv6 only is held back for IPv4 and a DNS server; 0 is 3 s.
	Grace time.Duration
	// ResolvConf is the resolver's file; "" is /etc/resolv.conf. It isn't touched before a server
	// is known, nor when the last one is gone.
	ResolvConf string

	system    system                              // nil: the kernel
	exchanges func(l link, kind askKind) exchange // nil: DHCP
}

// askKind is what is asked for.
type askKind uint8

const (
	ask4     askKind = iota // DHCPv4
	ask6                    // DHCPv6 with an address
	ask6Info                // DHCPv6 without
)

func (o *Options) defaults() {
	for _, d := range []struct {
		at    *time.Duration
		value time.Duration
	}{{&o.Deadline, time.Minute}, {&o.Settle, 5 * time.Second}, {&o.Grace, 3 * time.Second}} {
		if *d.at <= 0 {
			*d.at = d.value
		}
	}
	if o.ResolvConf == "" {
		o.ResolvConf = "/etc/resolv.conf"
	}
	if o.Console == nil {
		o.Console = func(string) {}
	}
	if o.system == nil {
		o.system = kernel{}
	}
	if o.exchanges == nil {
		o.exchanges = func(l link, kind askKind) exchange {
			if kind == ask4 {
				return dhcp4{name: l.name, mac: l.mac}
			}
			return dhcp6{name: l.name, mac: l.mac, stateful: kind == ask6}
		}
	}
}

// Network is a network that is being brought up, or is up.
type Network struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when the last goroutine has ended

	mu      sync.Mutex
	state   State
	verdict verdict
	changed chan struct{} // closed and replaced when state or verdict change
}

// Start begins to bring the network up in the background. ctx ends it as Close does.
func Start(ctx context.Context, c Config, o Options) *Network {
	o.defaults()
	ctx, cancel := context.WithCancel(ctx)
	n := &Network{cancel: cancel, done: make(chan struct{}), changed: make(chan struct{})}
	m := newManager(c, o, n.publish)
	go func() {
		defer close(n.done)
		m.run(ctx)
	}()
	return n
}

// Wait returns the state once the network can be used, or the reason why it can't: a *fault.Error, of
// area Input for a configuration that says so and else Retry of area Platform. After an error the
// attempts go on, and a later Wait may succeed. A ctx that ends is an error that says what was waited for.
func (n *Network) Wait(ctx context.Context) (State, error) {
	for {
		n.mu.Lock()
		s, v, changed := n.state, n.verdict, n.changed
		n.mu.Unlock()
		switch {
		case v.ready:
			return s, nil
		case v.err != nil:
			return s, v.err
		}
		select {
		case <-changed:
		case <-n.done:
			// The manager's last word may have come between the look and the wait.
			n.mu.Lock()
			s, v = n.state, n.verdict
			n.mu.Unlock()
			if v.ready || v.err != nil {
				return s, v.err
			}
			return s, fmt.Errorf("bring the network up: %w", context.Canceled)
		case <-ctx.Done():
			if s.Waiting != "" {
				return s, fmt.Errorf("bring the network up (%s): %w", s.Waiting, context.Cause(ctx))
			}
			return s, fmt.Errorf("bring the network up: %w", context.Cause(ctx))
		}
	}
}

// State returns the state as it is now, whether usable or not.
func (n *Network) State() State {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.state
}

// Close ends the background work and returns when it has ended. What was set up stays.
func (n *Network) Close() {
	n.cancel()
	<-n.done
}

func (n *Network) publish(s State, v verdict) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.state, n.verdict = s, v
	close(n.changed)
	n.changed = make(chan struct{})
}

// Existing reports the state of a network that somebody else brought up, a dracut or initramfs-tools
// initramfs or the system that this one is a container of: State.Usable is true where a link has an
// address that reaches beyond the link and a default route of the same IP version. It changes nothing
// and knows no DNS servers.
func Existing() (State, error) { return existing(kernel{}) }

func existing(sys system) (State, error) {
	links, err := sys.links()
	if err != nil {
		return State{}, fmt.Errorf("look for a network that is up: %w", err)
	}
	s := State{Links: []Link{}}
	for _, l := range links {
		if l.loopback || len(l.addrs) == 0 {
			continue
		}
		v := view{link: l}
		v4, v6 := v.usable()
		s.Usable = s.Usable || v4 || v6
		s.Links = append(s.Links, v.describe())
	}
	return s, nil
}
