package network

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestDHCPFromARealServer(t *testing.T) {
	l := newLab(t)
	if l == nil {
		return
	}
	l.cable("eth0", "10.9.0.1/24")
	l.plug("eth0", true)
	l.dnsmasq("eth0", "--dhcp-range=10.9.0.50,10.9.0.50,255.255.255.0,2m", "--dhcp-option=option:dns-server,10.9.0.2,10.9.0.3",
		"--dhcp-option=option:domain-name,lab.example", "--dhcp-option=option:ntp-server,10.9.0.4", "--dhcp-option=option:mtu,1400",
		"--dhcp-host=set:x,*:*:*:*:*:*,node-7")
	n := l.start(Config{}, Options{})
	s, err := n.Wait(t.Context())
	must(t, err)
	if a, _ := addressOf(s, "eth0", SourceDHCP); a != netip.MustParsePrefix("10.9.0.50/24") {
		t.Errorf("address %s", a)
	}
	if !s.Usable || s.Took <= 0 || !slices.Contains(s.DNS, netip.MustParseAddr("10.9.0.2")) || !slices.Contains(s.Search, "lab.example") ||
		!slices.Contains(s.NTP, netip.MustParseAddr("10.9.0.4")) || !slices.Contains(s.Links[0].Gateways, netip.MustParseAddr("10.9.0.1")) {
		t.Errorf("state %+v", s)
	}
	l.until(n, "an MTU of 1400", func(s State) bool { return s.Links[0].MTU == 1400 })
	if got := l.resolvText(); !strings.Contains(got, "\nnameserver 10.9.0.2\nnameserver 10.9.0.3\nsearch lab.example\n") {
		t.Errorf("resolv.conf:\n%s", got)
	}
	if got := l.routes("eth0"); got != "0.0.0.0/0 via 10.9.0.1" {
		t.Errorf("routes: %s", got)
	}
	l.told("network: eth0 has 10.9.0.50/24 (dhcp) by 10.9.0.1; DNS 10.9.0.2")
	n.Close()
	if up, err := Existing(); err != nil || !up.Usable {
		t.Errorf("after Close: %+v, %v", up, err)
	}
}
