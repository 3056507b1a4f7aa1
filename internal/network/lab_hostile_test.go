package network

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
)

// script is a DHCP server that says what it is told to, to each message several things if need be.
type script struct {
	t        *testing.T
	discover func(n int) [][]dhcpv4.Modifier
	request  func(n int, m *dhcpv4.DHCPv4) [][]dhcpv4.Modifier

	mu                 sync.Mutex
	discovers, renewed int
	requests           int
}

// serveScript runs the server on the far end of a link.
func (l *lab) serveScript(link string, s *script) {
	l.t.Helper()
	var srv *server4.Server
	l.inFar(func() error {
		var err error
		srv, err = server4.NewServer("far-"+link, &net.UDPAddr{Port: dhcpv4.ServerPort}, s.handle)
		return err
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve()
	}()
	l.t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
}

func (s *script) handle(conn net.PacketConn, peer net.Addr, m *dhcpv4.DHCPv4) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var said [][]dhcpv4.Modifier
	switch m.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		said = s.discover(s.discovers)
		s.discovers++
	case dhcpv4.MessageTypeRequest:
		if !m.ClientIPAddr.IsUnspecified() {
			s.renewed++
		}
		said = s.request(s.requests, m)
		s.requests++
	}
	// A client without an address hears broadcasts only; one that renews is answered where it is.
	if udp, ok := peer.(*net.UDPAddr); !ok || udp.IP.IsUnspecified() {
		peer = &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ClientPort}
	}
	for _, mods := range said {
		r, err := dhcpv4.NewReplyFromRequest(m, append([]dhcpv4.Modifier{
			dhcpv4.WithYourIP(net.IPv4(10, 9, 0, 50)), dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithLeaseTime(3600),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 9, 0, 1))), dhcpv4.WithRouter(net.IPv4(10, 9, 0, 1)),
		}, mods...)...)
		if err == nil {
			_, err = conn.WriteTo(r.ToBytes(), peer)
		}
		if err != nil {
			s.t.Errorf("answer: %v", err)
		}
	}
}

var (
	offer = dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer)
	yes   = dhcpv4.WithMessageType(dhcpv4.MessageTypeAck)
	no    = dhcpv4.WithMessageType(dhcpv4.MessageTypeNak)
)

func plainOffer(int) [][]dhcpv4.Modifier { return [][]dhcpv4.Modifier{{offer}} }

func TestHostileDHCPServer(t *testing.T) {
	l := newLab(t)
	if l == nil {
		return
	}
	l.cable("eth0", "10.9.0.1/24")
	l.plug("eth0", true)
	routes := make([]byte, 0, 600)
	for i := range 80 {
		routes = append(routes, 24, 10, 20, byte(i), 10, 9, 0, 1)
	}
	evil := []dhcpv4.Modifier{
		yes, raw(dhcpv4.OptionHostName, "x\nnameserver 6.6.6.6"), raw(dhcpv4.OptionDomainName, "a\nnameserver 6.6.6.6"),
		raw(dhcpv4.OptionInterfaceMTU, "\x00\x44"), dhcpv4.WithDNS(net.IPv4(127, 0, 0, 1), net.IPv4bcast, net.IPv4(10, 9, 0, 53)),
		raw(dhcpv4.OptionClasslessStaticRoute, string(routes)+"\x00\x0a\x09\x00\x01"), raw(dhcpv4.OptionNTPServers, "\x01"),
	}
	l.serveScript("eth0", &script{
		t: t,
		discover: func(int) [][]dhcpv4.Modifier {
			return [][]dhcpv4.Modifier{
				{offer, dhcpv4.WithYourIP(net.IPv4bcast)},
				{offer, raw(dhcpv4.OptionSubnetMask, "\x00\xff\x00\xff")},
				{offer, dhcpv4.WithLeaseTime(1)},
				{offer},
			}
		},
		request: func(int, *dhcpv4.DHCPv4) [][]dhcpv4.Modifier {
			return [][]dhcpv4.Modifier{{yes, dhcpv4.WithYourIP(net.IPv4(127, 0, 0, 1))}, evil}
		},
	})
	n := l.start(Config{}, Options{})
	s, err := n.Wait(t.Context())
	must(t, err)
	if a, _ := addressOf(s, "eth0", SourceDHCP); a != netip.MustParsePrefix("10.9.0.50/24") || s.Hostname != "" || len(s.Search) != 0 ||
		s.Links[0].MTU != 1500 || len(s.DNS) != 1 || len(s.NTP) != 0 {
		t.Errorf("%+v", s)
	}
	if got := l.resolvText(); strings.Contains(got, "6.6.6.6") || strings.Count(got, "\n") != 2 {
		t.Errorf("resolv.conf:\n%s", got)
	}
	if got := strings.Count(l.routes("eth0"), "via 10.9.0.1"); got != maxRoutes {
		t.Errorf("%d routes", got)
	}
	l.told("an MTU outside of 576 to 9216 bytes; left out")
	l.told("a host name that isn't one; left out")
}

func TestOnlyRefusedAnswers(t *testing.T) {
	l := newLab(t)
	if l == nil {
		return
	}
	l.cable("eth0", "10.9.0.1/24")
	l.plug("eth0", true)
	s := &script{
		t:        t,
		discover: plainOffer,
		request:  func(int, *dhcpv4.DHCPv4) [][]dhcpv4.Modifier { return [][]dhcpv4.Modifier{{no}} },
	}
	l.serveScript("eth0", s)
	n := l.start(Config{}, Options{Deadline: 1500 * time.Millisecond})
	if _, err := n.Wait(t.Context()); err == nil {
		t.Error("it can be used")
	}
	l.fails(n, "eth0 has no address", "takes the address back") //nolint:errcheck // what it is was looked at
	if n.State().Usable {
		t.Errorf("%+v", n.State())
	}
}

func TestRenewalChangesWhatItMust(t *testing.T) {
	l := newLab(t)
	if l == nil {
		return
	}
	l.cable("eth0", "10.9.0.1/24")
	l.plug("eth0", true)
	short := []dhcpv4.Modifier{yes, dhcpv4.WithLeaseTime(20), dhcpv4.WithOption(dhcpv4.OptRenewTimeValue(3 * time.Second))}
	// Whoever hears an answer too late asks again: the server goes on to the next when the test has seen what came of it.
	var renewed atomic.Bool
	refused := false
	s := &script{
		t:        t,
		discover: plainOffer,
		request: func(_ int, m *dhcpv4.DHCPv4) [][]dhcpv4.Modifier {
			renews := m.ClientIPAddr.Equal(net.IPv4(10, 9, 0, 50))
			switch {
			case !renews && !refused:
				return [][]dhcpv4.Modifier{append(slices.Clone(short), dhcpv4.WithDNS(net.IPv4(10, 9, 0, 53)))}
			case renews && !renewed.Load(): // with other servers
				return [][]dhcpv4.Modifier{append(slices.Clone(short), dhcpv4.WithDNS(net.IPv4(10, 9, 0, 54)), dhcpv4.WithRouter(net.IPv4(10, 9, 0, 2)))}
			case renews:
				refused = true
				return [][]dhcpv4.Modifier{{no}}
			default:
				return [][]dhcpv4.Modifier{{yes, dhcpv4.WithYourIP(net.IPv4(10, 9, 0, 51))}}
			}
		},
	}
	l.serveScript("eth0", s)
	n := l.start(Config{}, Options{})
	_, err := n.Wait(t.Context())
	must(t, err)
	l.until(n, "with the renewed lease's DNS server", func(s State) bool { return len(s.DNS) == 1 && s.DNS[0] == netip.MustParseAddr("10.9.0.54") })
	if got := l.routes("eth0"); got != "0.0.0.0/0 via 10.9.0.2" {
		t.Errorf("routes: %s", got)
	}
	renewed.Store(true)
	l.told("network: eth0 lost 10.9.0.50/24: the server takes the address back")
	state := l.until(n, "with another address", func(s State) bool {
		a, _ := addressOf(s, "eth0", SourceDHCP)
		return a == netip.MustParsePrefix("10.9.0.51/24")
	})
	if len(state.Links[0].Addresses) != 1 {
		t.Errorf("the old address is still there: %+v", state)
	}
	if s.mu.Lock(); s.renewed < 2 {
		t.Errorf("%d renewals", s.renewed)
	}
	s.mu.Unlock()
}

// Some clouds give an address without a network: the gateway is reached by a route of its own.
func TestAddressWithoutANetwork(t *testing.T) {
	l := newLab(t)
	if l == nil {
		return
	}
	l.cable("eth0", "10.9.0.1/24")
	l.plug("eth0", true)
	alone := dhcpv4.WithNetmask(net.CIDRMask(32, 32))
	l.serveScript("eth0", &script{
		t:        t,
		discover: func(int) [][]dhcpv4.Modifier { return [][]dhcpv4.Modifier{{offer, alone}} },
		request: func(int, *dhcpv4.DHCPv4) [][]dhcpv4.Modifier {
			return [][]dhcpv4.Modifier{{yes, alone, raw(dhcpv4.OptionClasslessStaticRoute, "\x20\x0a\x09\x00\x01\x00\x00\x00\x00\x00\x0a\x09\x00\x01")}}
		},
	})
	n := l.start(Config{}, Options{})
	s, err := n.Wait(t.Context())
	must(t, err)
	if a, _ := addressOf(s, "eth0", SourceDHCP); a.Bits() != 32 {
		t.Errorf("%+v", s)
	}
	if got := l.routes("eth0"); got != "0.0.0.0/0 via 10.9.0.1; 10.9.0.1/32 via link" {
		t.Errorf("routes: %s", got)
	}
}
