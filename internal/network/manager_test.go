package network

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// fakeSystem is a kernel that holds links, addresses and routes in memory and notes what was changed.
type fakeSystem struct {
	mu       sync.Mutex
	all      []link
	did      []string
	lists    int
	panics   int // so many of the first lists
	events   chan event
	watchErr error
	listErr  error
}

func (f *fakeSystem) watch() (<-chan event, func(), error) {
	return f.events, func() {}, f.watchErr
}

func (f *fakeSystem) links() ([]link, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists++
	if f.lists <= f.panics {
		panic(errDefect)
	}
	out := slices.Clone(f.all)
	for i := range out {
		out[i].addrs = slices.Clone(out[i].addrs)
	}
	return out, f.listErr
}

func (f *fakeSystem) change(index int, what string, do func(*link)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := byIndex(f.all, index)
	if l == nil {
		return errNoLink
	}
	f.did = append(f.did, l.name+" "+what)
	do(l)
	return nil
}

func (f *fakeSystem) up(index int) error {
	return f.change(index, "up", func(l *link) { l.up = true })
}

func (f *fakeSystem) acceptRouters(string) error { return nil }

func (f *fakeSystem) setMTU(index, mtu int) error {
	return f.change(index, fmt.Sprint("mtu ", mtu), func(l *link) { l.mtu = mtu })
}

func (f *fakeSystem) putAddress(index int, a netip.Prefix, lifetime time.Duration) error {
	return f.change(index, fmt.Sprintf("+%s for %s", a, lifetime), func(l *link) {
		if present, _ := l.has(a.Addr()); !present {
			l.addrs = append(l.addrs, address{prefix: a, ready: true})
		}
	})
}

func (f *fakeSystem) dropAddress(index int, a netip.Prefix) error {
	return f.change(index, "-"+a.String(), func(l *link) {
		l.addrs = slices.DeleteFunc(l.addrs, func(h address) bool { return h.prefix == a })
	})
}

func (f *fakeSystem) putRoute(index int, r ownRoute) error {
	return f.change(index, fmt.Sprintf("+route %s via %s metric %d onlink %v", r.to, r.via, r.metric, r.onLink), func(*link) {})
}

func (f *fakeSystem) dropRoute(index int, r ownRoute) error {
	return f.change(index, fmt.Sprintf("-route %s via %s", r.to, r.via), func(*link) {})
}

// set changes links as the outside would, and tells.
func (f *fakeSystem) set(do func(*fakeSystem)) {
	f.mu.Lock()
	do(f)
	f.mu.Unlock()
	if f.events != nil {
		f.events <- event{changed: true}
	}
}

func (f *fakeSystem) done() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.did, "\n")
}

// bubble runs a network over sys by a clock of its own.
func bubble(t *testing.T, sys *fakeSystem, server exchange, f func(t *testing.T, n *Network, console func() string)) {
	t.Helper()
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	synctest.Test(t, func(t *testing.T) {
		if sys.watchErr == nil {
			sys.events = make(chan event)
		}
		var mu sync.Mutex
		var lines []string
		begun := time.Now()
		n := Start(t.Context(), Config{}, Options{
			ResolvConf: resolv, system: sys, exchanges: func(link, askKind) exchange { return server },
			Console: func(line string) {
				mu.Lock()
				defer mu.Unlock()
				lines = append(lines, fmt.Sprintf("%s %s", time.Since(begun).Round(100*time.Millisecond), line))
			},
		})
		defer n.Close()
		f(t, n, func() string {
			mu.Lock()
			defer mu.Unlock()
			return strings.Join(lines, "\n")
		})
	})
}

var (
	lo   = link{index: 1, name: "lo", loopback: true}
	eth0 = link{index: 2, name: "eth0", ethernet: true, mtu: 1500, ipv6: true}
)

func TestWaitEndsInTime(t *testing.T) {
	sys := &fakeSystem{all: []link{lo}}
	bubble(t, sys, &fakeServer{answers: slices.Repeat([]error{errSilent}, 99)}, func(t *testing.T, n *Network, console func() string) {
		begun := time.Now()
		if _, err := n.Wait(t.Context()); err == nil || time.Since(begun) != 5*time.Second || fault.KindOf(err) != fault.Retry {
			t.Errorf("%v after %s", err, time.Since(begun))
		}
		sys.set(func(f *fakeSystem) { f.all = append(f.all, eth0) })
		time.Sleep(2 * time.Second)
		sys.set(func(f *fakeSystem) { f.all[1].carrier = true })
		time.Sleep(time.Second)
		if _, err := n.Wait(t.Context()); err == nil || time.Since(begun) != time.Minute || !strings.Contains(err.Error(), "eth0 has no address after 1m0s: nobody answers") {
			t.Errorf("%v after %s", err, time.Since(begun))
		}
		want := []string{
			"500ms network: no network link yet, waiting for one",
			"5s network: no link has a carrier (eth0), waiting for one",
			"7s network: eth0 has a carrier, asking for an address by DHCP and listening for an IPv6 router",
			"7.5s network: eth0 has a carrier, asking for an address by DHCP and listening for an IPv6 router (nobody answers)",
		}
		if got := console(); got != strings.Join(want, "\n") {
			t.Errorf("the console:\n%s", got)
		}
		if got := sys.done(); got != "lo up\neth0 up" {
			t.Errorf("did:\n%s", got)
		}
	})
}

func TestLeaseIsSetUpProlongedAndTakenAway(t *testing.T) {
	wired := eth0
	wired.carrier = true
	sys := &fakeSystem{all: []link{lo, wired}}
	server := &fakeServer{expire: time.Hour, answers: append([]error{nil, nil}, slices.Repeat([]error{errSilent}, 99)...)}
	bubble(t, sys, server, func(t *testing.T, n *Network, console func() string) {
		s, err := n.Wait(t.Context())
		if err != nil || !s.Usable {
			t.Fatalf("%+v, %v", s, err)
		}
		time.Sleep(31 * time.Minute)
		if got, want := sys.done(), "lo up\neth0 up\neth0 +10.0.0.7/24 for 1h0m0s\neth0 +10.0.0.7/24 for 1h0m0s"; got != want {
			t.Errorf("did:\n%s", got)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := sys.done(); !strings.HasSuffix(got, "\neth0 -10.0.0.7/24") || n.State().Usable {
			t.Errorf("did:\n%s\n%+v", got, n.State())
		}
		if !strings.Contains(console(), "network: eth0 lost 10.0.0.7/24: the lease has ended: nobody answers") {
			t.Errorf("the console:\n%s", console())
		}
	})
}

func TestCloseLeavesEverythingInPlace(t *testing.T) {
	wired := eth0
	wired.carrier = true
	sys := &fakeSystem{all: []link{wired}}
	bubble(t, sys, &fakeServer{expire: time.Hour}, func(t *testing.T, n *Network, _ func() string) {
		if _, err := n.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		n.Close()
		if got := sys.done(); strings.Contains(got, " -") {
			t.Errorf("did:\n%s", got)
		}
		if s, err := n.Wait(t.Context()); err != nil || !s.Usable {
			t.Errorf("after Close: %+v, %v", s, err)
		}
	})
}

func TestNoEventsFromTheKernel(t *testing.T) {
	sys := &fakeSystem{all: []link{eth0}, watchErr: errors.New("no netlink")}
	bubble(t, sys, &fakeServer{}, func(t *testing.T, n *Network, console func() string) {
		sys.set(func(f *fakeSystem) { f.all[0].carrier = true })
		if _, err := n.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		if !strings.Contains(console(), "no netlink; asking it every second instead") {
			t.Errorf("the console:\n%s", console())
		}
	})
}

func TestFloodOfEventsIsSlowedDown(t *testing.T) {
	sys := &fakeSystem{all: []link{eth0}}
	bubble(t, sys, &fakeServer{}, func(t *testing.T, _ *Network, _ func() string) {
		begun := time.Now()
		for time.Since(begun) < time.Minute {
			sys.set(func(*fakeSystem) {})
			time.Sleep(time.Millisecond)
		}
		if sys.lists > burst+2+60*int(time.Second/slowly) {
			t.Errorf("%d looks in a minute", sys.lists)
		}
	})
}

func TestKernelThatCannotBeAsked(t *testing.T) {
	sys := &fakeSystem{listErr: errors.New("no netlink")}
	bubble(t, sys, &fakeServer{}, func(t *testing.T, n *Network, _ func() string) {
		if _, err := n.Wait(t.Context()); fault.KindOf(err) != fault.Broken || !strings.Contains(err.Error(), "no netlink") {
			t.Errorf("%v", err)
		}
	})
}

func TestMTUThatWouldSwitchIPv6Off(t *testing.T) {
	for _, ipv6 := range []bool{true, false} {
		wired := eth0
		wired.carrier, wired.ipv6 = true, ipv6
		sys := &fakeSystem{all: []link{wired}}
		m := newManager(Config{}, Options{system: sys, Console: func(string) {}}, nil)
		m.put(&held{link: wired}, &lease{source: SourceDHCP, address: netip.MustParsePrefix("10.0.0.7/32"), mtu: 600, routes: []route{
			{to: netip.MustParsePrefix("0.0.0.0/0"), via: netip.MustParseAddr("10.0.0.1")},
		}})
		want := "eth0 +10.0.0.7/32 for 0s\neth0 +route 0.0.0.0/0 via 10.0.0.1 metric 1026 onlink true"
		if !ipv6 {
			want = "eth0 mtu 600\n" + want
		}
		if got := sys.done(); got != want {
			t.Errorf("IPv6 %v, did:\n%s", ipv6, got)
		}
	}
}
