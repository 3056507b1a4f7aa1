package network

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/powernode/powernode-agent/internal/fault"
)

func TestCarrierAndLinkThatComeLate(t *testing.T) {
	l := newLab(t)
	if l == nil {
		return
	}
	l.cable("eth0", "10.9.0.1/24")
	l.dnsmasq("eth0", "--dhcp-range=10.9.0.50,10.9.0.60,255.255.255.0,2m")
	n := l.start(Config{}, Options{})
	l.told("network: no link has a carrier (eth0), waiting for one")
	l.plug("eth0", true)
	_, err := n.Wait(t.Context())
	must(t, err)
	l.told("network: eth0 has 10.9.0.")

	l.cable("eth1", "10.10.0.1/24")
	l.plug("eth1", true)
	l.dnsmasq("eth1", "--dhcp-range=10.10.0.50,10.10.0.60,255.255.255.0,2m")
	l.until(n, "two links up", func(s State) bool {
		_, ok := addressOf(s, "eth1", SourceDHCP)
		return ok
	})

	eth1, err := netlink.LinkByName("eth1")
	must(t, err)
	must(t, netlink.LinkDel(eth1))
	l.until(n, "without the link that was pulled", func(s State) bool { return len(s.Links) == 1 && s.Usable })

	l.plug("eth0", false)
	l.until(n, "unusable without a carrier", func(s State) bool { return !s.Usable })
	l.plug("eth0", true)
	l.until(n, "usable again", func(s State) bool { return s.Usable })
}

func TestNoLinkAtAll(t *testing.T) {
	l := newLab(t)
	if l == nil {
		return
	}
	must(t, netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "bridge0"}})) // nothing to be waited for
	n := l.start(Config{}, Options{Settle: time.Millisecond})
	_, err := n.Wait(t.Context())
	if err == nil || fault.KindOf(err) != fault.Retry || !strings.Contains(err.Error(), "no network link") {
		t.Errorf("%v", err)
	}
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	if lo.Attrs().RawFlags&1 == 0 {
		t.Error("lo is down")
	}
	if s, err := Existing(); err != nil || s.Usable || len(s.Links) != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	// A link that comes after all is waited for again.
	l.cable("eth0")
	l.told("network: no link has a carrier (eth0), waiting for one")
	// The console is told first.
	l.until(n, "waiting for a carrier", func(s State) bool { return strings.Contains(s.Waiting, "no link has a carrier (eth0)") })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.Wait(ctx); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "no link has a carrier (eth0)") {
		t.Errorf("%v", err)
	}
}

func TestDeadlineNamesWhatIsMissing(t *testing.T) {
	l := newLab(t)
	if l == nil {
		return
	}
	l.cable("eth0")
	l.cable("eth1")
	l.plug("eth1", true)
	n := l.start(Config{}, Options{Deadline: 300 * time.Millisecond})
	_, err := n.Wait(t.Context())
	if err == nil || fault.AreaOf(err) != fault.Platform || fault.HintOf(err) == "" {
		t.Errorf("%v (%s)", err, fault.HintOf(err))
	}
	if err := l.fails(n, "eth1 has no address"); fault.AreaOf(err) != fault.Platform || fault.HintOf(err) == "" {
		t.Errorf("%v (%s)", err, fault.HintOf(err))
	}
	// The attempts go on.
	l.inFar(func() error {
		peer, err := netlink.LinkByName("far-eth1")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(peer, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("10.9.0.1/24"))})
	})
	l.dnsmasq("eth1", "--dhcp-range=10.9.0.50,10.9.0.60,255.255.255.0,2m")
	l.until(n, "usable after the deadline", func(s State) bool { return s.Usable })
	_, err = n.Wait(t.Context())
	must(t, err)
}

func TestStaticAddresses(t *testing.T) {
	l := newLab(t)
	if l == nil {
		return
	}
	l.cable("eth0")
	l.cable("eth1")
	l.cable("eth2")
	l.plug("eth0", true)
	l.plug("eth1", true)
	l.plug("eth2", true)
	c, err := Parse([]Param{
		{"ip", "10.9.0.7::10.9.0.1:255.255.255.0:node-7:eth1:none:10.9.0.53"},
		{"ip", "[fd00:9::7]::[fd00:9::1]:64::eth1:none"},
		{"ip", "10.10.0.7/24:::::eth0:none:1300"},
		{"nameserver", "10.9.0.52"},
	})
	must(t, err)
	n := l.start(c, Options{})
	_, err = n.Wait(t.Context())
	must(t, err)
	s := l.until(n, "with all addresses", func(s State) bool {
		return len(s.Links) == 2 && len(s.Links[0].Addresses) == 1 && len(s.Links[1].Addresses) == 2 && len(s.Links[1].Gateways) == 2 && s.Links[0].MTU == 1300
	})
	if s.Hostname != "node-7" || s.Links[1].Name != "eth1" || s.Links[1].Addresses[0].Source != SourceStatic {
		t.Errorf("state %+v", s)
	}
	if got := l.resolvText(); !strings.Contains(got, "nameserver 10.9.0.52\nnameserver 10.9.0.53\n") {
		t.Errorf("resolv.conf:\n%s", got)
	}
	eth2, err := netlink.LinkByName("eth2")
	must(t, err)
	if eth2.Attrs().RawFlags&1 != 0 {
		t.Error("eth2, which ip= doesn't name, was switched on")
	}
	n.Close()
	if up, err := Existing(); err != nil || !up.Usable {
		t.Errorf("after Close: %+v, %v", up, err)
	}
}

func TestStaticAddressOnTheLinkWithACarrier(t *testing.T) {
	l := newLab(t)
	if l == nil {
		return
	}
	l.cable("eth0")
	l.cable("eth1")
	c, err := Parse([]Param{{"ip", "10.9.0.7::10.9.0.1:255.255.255.0::"}})
	must(t, err)
	n := l.start(c, Options{})
	l.told("no link has a carrier (eth0, eth1)")
	l.plug("eth1", true)
	_, err = n.Wait(t.Context())
	must(t, err)
	if _, ok := addressOf(n.State(), "eth1", SourceStatic); !ok {
		t.Errorf("state %+v", n.State())
	}
}
