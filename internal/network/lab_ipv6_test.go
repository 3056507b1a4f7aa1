package network

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// radvd advertises on the far end of eth0.
func (l *lab) radvd(config string) {
	l.t.Helper()
	path := filepath.Join(l.t.TempDir(), "radvd.conf")
	must(l.t, os.WriteFile(path, []byte("interface far-eth0 {\n AdvSendAdvert on;\n MinRtrAdvInterval 3;\n MaxRtrAdvInterval 4;\n"+config+"\n};\n"), 0o600))
	l.serve("radvd", "--nodaemon", "--config", path, "--pidfile", path+".pid", "--logmethod", "stderr")
}

func TestRouterAdvertisesAddressesAndDNS(t *testing.T) {
	l := newLab(t)
	if l == nil {
		return
	}
	l.cable("eth0", "fd00:9::1/64")
	l.plug("eth0", true)
	l.radvd(`prefix fd00:9::/64 { AdvOnLink on; AdvAutonomous on; };
		RDNSS fd00:9::53 fe80::53 { AdvRDNSSLifetime 600; };
		DNSSL lab.example { AdvDNSSLLifetime 600; };`)
	n := l.start(Config{Links: []LinkConfig{{Method: MethodAuto6}}}, Options{})
	_, err := n.Wait(t.Context())
	must(t, err)
	s := l.until(n, "with the router's DNS servers", func(s State) bool { return len(s.DNS) == 2 && len(s.Search) == 1 })
	a, _ := addressOf(s, "eth0", SourceRA)
	if !netip.MustParsePrefix("fd00:9::/64").Contains(a.Addr()) || len(s.Links[0].Gateways) != 1 {
		t.Errorf("state %+v", s)
	}
	if got := l.resolvText(); !strings.Contains(got, "\nnameserver fd00:9::53\nnameserver fe80::53%eth0\nsearch lab.example\n") {
		t.Errorf("resolv.conf:\n%s", got)
	}
}

func TestDHCPv6GivesAnAddress(t *testing.T) {
	l := newLab(t)
	if l == nil {
		return
	}
	l.cable("eth0", "fd00:9::1/64")
	l.plug("eth0", true)
	l.dnsmasq("eth0", "--enable-ra", "--dhcp-range=fd00:9::100,fd00:9::100,64,10m", "--dhcp-option=option6:dns-server,[fd00:9::53]",
		"--dhcp-option=option6:domain-search,lab.example")
	n := l.start(Config{}, Options{})
	_, err := n.Wait(t.Context())
	must(t, err)
	s := l.until(n, "with the leased address and DNS server", func(s State) bool {
		_, ok := addressOf(s, "eth0", SourceDHCP6)
		return ok && len(s.DNS) > 0
	})
	if a, _ := addressOf(s, "eth0", SourceDHCP6); a != netip.MustParsePrefix("fd00:9::100/128") || !slices.Contains(s.Search, "lab.example") {
		t.Errorf("state %+v", s)
	}
}

func TestDHCPv6OnlyForServers(t *testing.T) {
	l := newLab(t)
	if l == nil {
		return
	}
	l.cable("eth0", "fd00:9::1/64")
	l.plug("eth0", true)
	// Without RDNSS in the advertisement, the servers are only to be had by an information request.
	l.serve("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--log-facility=-", "--log-dhcp", "--user=root", "--no-resolv",
		"--no-hosts", "--port=0", "--leasefile-ro", "--pid-file="+filepath.Join(t.TempDir(), "pid"), "--interface=far-eth0",
		"--dhcp-range=fd00:9::,static,64,10m", "--dhcp-option=option6:dns-server,[fd00:9::54]")
	l.radvd("AdvOtherConfigFlag on; prefix fd00:9::/64 { AdvOnLink on; AdvAutonomous on; };")
	n := l.start(Config{}, Options{})
	_, err := n.Wait(t.Context())
	must(t, err)
	s := l.until(n, "with a DNS server", func(s State) bool { return len(s.DNS) == 1 })
	if s.DNS[0] != netip.MustParseAddr("fd00:9::54") {
		t.Errorf("state %+v", s)
	}
	if _, leased := addressOf(s, "eth0", SourceDHCP6); leased {
		t.Errorf("an address was leased that nobody offered: %+v", s)
	}
}
