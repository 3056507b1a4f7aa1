package network

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// ack makes a server's answer, with a good one's options before mods.
func ack(t testing.TB, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{
		dhcpv4.WithMessageType(dhcpv4.MessageTypeAck), dhcpv4.WithYourIP(net.IPv4(10, 9, 0, 50)),
		dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithLeaseTime(3600),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 9, 0, 1))), dhcpv4.WithRouter(net.IPv4(10, 9, 0, 1)),
	}, mods...)...)
	if err != nil {
		t.Fatal(err)
	}
	// As from the wire, where every option is bytes.
	out, err := dhcpv4.FromBytes(m.ToBytes())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// gateway returns the default route's gateway, or the invalid address.
func (l *lease) gateway() netip.Addr {
	for _, r := range l.routes {
		if r.to.Bits() == 0 {
			return r.via
		}
	}
	return netip.Addr{}
}

func raw(code dhcpv4.OptionCode, value string) dhcpv4.Modifier {
	return dhcpv4.WithGeneric(code, []byte(value))
}

func TestLeaseFrom4(t *testing.T) {
	l, err := leaseFrom4(ack(t, dhcpv4.WithDNS(net.IPv4(10, 9, 0, 2), net.IPv4(127, 0, 0, 1), net.IPv4(10, 9, 0, 2), net.IPv4zero, net.IPv4bcast),
		raw(dhcpv4.OptionDomainName, "Lab.Example\x00"), raw(dhcpv4.OptionHostName, "node-7.lab.example"), raw(dhcpv4.OptionInterfaceMTU, "\x05\x78"),
		dhcpv4.WithDomainSearchList("a.example", "b.example")), noon)
	if err != nil {
		t.Fatal(err)
	}
	if l.address != netip.MustParsePrefix("10.9.0.50/24") || l.gateway() != netip.MustParseAddr("10.9.0.1") || l.mtu != 1400 ||
		l.hostname != "node-7.lab.example" || l.renew != 30*time.Minute || l.rebind != 3150*time.Second || l.until() != noon.Add(time.Hour) {
		t.Errorf("%+v", l)
	}
	if d := cmp.Diff([]string{"a.example", "b.example", "lab.example"}, l.search); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(addrs("10.9.0.2"), l.dns, compareAddrs); d != "" {
		t.Error(d)
	}
	if len(l.remarks) != 0 {
		t.Errorf("remarks %q", l.remarks)
	}
}

func TestLeaseFrom4Refuses(t *testing.T) {
	for text, mod := range map[string]dhcpv4.Modifier{
		"can't be a machine's":  dhcpv4.WithYourIP(net.IPv4zero),
		"gives 127.0.0.1":       dhcpv4.WithYourIP(net.IPv4(127, 0, 0, 1)),
		"gives 224.0.0.1":       dhcpv4.WithYourIP(net.IPv4(224, 0, 0, 1)),
		"gives 255.255.255.255": dhcpv4.WithYourIP(net.IPv4bcast),
		"link-local":            dhcpv4.WithYourIP(net.IPv4(169, 254, 1, 1)),
		"10.9.0.255/24":         dhcpv4.WithYourIP(net.IPv4(10, 9, 0, 255)),
		"10.9.0.0/24":           dhcpv4.WithYourIP(net.IPv4(10, 9, 0, 0)),
		"netmask ff00ff00":      raw(dhcpv4.OptionSubnetMask, "\xff\x00\xff\x00"),
		"netmask 00000000":      raw(dhcpv4.OptionSubnetMask, "\x00\x00\x00\x00"),
		"netmask ffff":          raw(dhcpv4.OptionSubnetMask, "\xff\xff"),
		"which server":          raw(dhcpv4.OptionServerIdentifier, "\x00\x00\x00\x00"),
		"0 bytes":               dhcpv4.WithoutOption(dhcpv4.OptionIPAddressLeaseTime),
		"2 bytes":               raw(dhcpv4.OptionIPAddressLeaseTime, "\x01\x00"),
		"shorter than 20s":      dhcpv4.WithLeaseTime(19),
	} {
		if l, err := leaseFrom4(ack(t, mod), noon); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("want %q, got %+v, %v", text, l, err)
		}
	}
}

func TestLeaseFrom4LeavesOutWhatIsWrong(t *testing.T) {
	routes := []byte{}
	for i := range 200 {
		routes = append(routes, 24, 10, 20, byte(i), 10, 9, 0, 1)
	}
	for _, c := range []struct {
		remark string
		mod    dhcpv4.Modifier
		check  func(*lease) bool
	}{
		{"MTU", raw(dhcpv4.OptionInterfaceMTU, "\x00\x44"), func(l *lease) bool { return l.mtu == 0 }},
		{"MTU", raw(dhcpv4.OptionInterfaceMTU, "\xff\xff"), func(l *lease) bool { return l.mtu == 0 }},
		{"MTU", raw(dhcpv4.OptionInterfaceMTU, "\x05"), func(l *lease) bool { return l.mtu == 0 }},
		{"host name", raw(dhcpv4.OptionHostName, "x\nnameserver 6.6.6.6"), func(l *lease) bool { return l.hostname == "" }},
		{"host name", raw(dhcpv4.OptionHostName, "localhost"), func(l *lease) bool { return l.hostname == "" }},
		{"host name", raw(dhcpv4.OptionHostName, "10.0.0.1"), func(l *lease) bool { return l.hostname == "" }},
		{"host name", raw(dhcpv4.OptionHostName, strings.Repeat("a", 65)), func(l *lease) bool { return l.hostname == "" }},
		{"search domains", raw(dhcpv4.OptionDomainName, "$(reboot)"), func(l *lease) bool { return len(l.search) == 0 }},
		{"router", dhcpv4.WithRouter(net.IPv4bcast, net.IPv4(10, 9, 0, 50)), func(l *lease) bool { return len(l.routes) == 0 }},
		{"136 routes after", raw(dhcpv4.OptionClasslessStaticRoute, string(routes)), func(l *lease) bool { return len(l.routes) == maxRoutes }},
		{"RFC 3442", raw(dhcpv4.OptionClasslessStaticRoute, "\x40\x01"), func(l *lease) bool { return l.gateway().IsValid() }},
		{"a route that", raw(dhcpv4.OptionClasslessStaticRoute, "\x08\x7f\x0a\x09\x00\x01"), func(l *lease) bool { return len(l.routes) == 0 }},
		{"", raw(dhcpv4.OptionClasslessStaticRoute, "\x20\x0a\x80\x00\x01\x00\x00\x00\x00\x00\x0a\x80\x00\x01"), func(l *lease) bool {
			return len(l.routes) == 2 && !l.routes[1].via.IsValid() && l.gateway() == netip.MustParseAddr("10.128.0.1")
		}},
		{"", dhcpv4.WithLeaseTime(0xffffffff), func(l *lease) bool { return l.until().IsZero() }},
		{"", dhcpv4.WithoutOption(dhcpv4.OptionSubnetMask), func(l *lease) bool { return l.address.Bits() == 8 }},
		{"", raw(dhcpv4.OptionRenewTimeValue, "\x00\x00\x00\x01"), func(l *lease) bool { return l.renew == 30*time.Minute }},
		{"", raw(dhcpv4.OptionRebindingTimeValue, "\xff\xff\xff\x01"), func(l *lease) bool { return l.rebind == 3150*time.Second }},
	} {
		l, err := leaseFrom4(ack(t, c.mod), noon)
		if err != nil {
			t.Errorf("%s: %v", c.remark, err)
			continue
		}
		if !c.check(l) {
			t.Errorf("%s: %+v", c.remark, l)
		}
		if said := strings.Join(l.remarks, "; "); c.remark == "" && said != "" || !strings.Contains(said, c.remark) {
			t.Errorf("remarks %q, want %q", said, c.remark)
		}
	}
}

func reply6(t testing.TB, mods ...dhcpv6.Modifier) *dhcpv6.Message {
	t.Helper()
	m, err := dhcpv6.NewMessage(mods...)
	if err != nil {
		t.Fatal(err)
	}
	m.MessageType = dhcpv6.MessageTypeReply
	out, err := dhcpv6.MessageFromBytes(m.ToBytes())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestLeaseFrom6(t *testing.T) {
	id := dhcpv6.WithServerID(&dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}})
	address := func(a string, valid time.Duration) dhcpv6.Modifier {
		return dhcpv6.WithIANA(dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP(a), PreferredLifetime: valid, ValidLifetime: valid})
	}
	dns := dhcpv6.WithDNS(net.ParseIP("fd00::53"), net.ParseIP("::1"), net.ParseIP("ff02::1"))
	l, err := leaseFrom6(reply6(t, id, dns, address("fd00:9::100", time.Hour), dhcpv6.WithDomainSearchList("lab.example", "x y")), true, noon)
	if err != nil || l.address != netip.MustParsePrefix("fd00:9::100/128") || l.expire != time.Hour || l.renew != 30*time.Minute ||
		len(l.dns) != 1 || len(l.search) != 1 {
		t.Errorf("%+v, %v", l, err)
	}
	if l, err = leaseFrom6(reply6(t, id, dns), false, noon); err != nil || l.address.IsValid() || l.renew != refreshDefault || len(l.dns) != 1 {
		t.Errorf("%+v, %v", l, err)
	}
	for text, mods := range map[string][]dhcpv6.Modifier{
		"which server":           {address("fd00:9::100", time.Hour)},
		"gives no address":       {id},
		"gives fe80::1":          {id, address("fe80::1", time.Hour)},
		"gives 10.0.0.1":         {id, address("10.0.0.1", time.Hour)},
		"shorter than 20s":       {id, address("fd00:9::100", time.Second)},
		"says no (status 1)":     {id, dhcpv6.WithOption(&dhcpv6.OptStatusCode{StatusCode: iana.StatusUnspecFail})},
		"takes the address back": {id, dhcpv6.WithOption(&dhcpv6.OptIANA{Options: dhcpv6.IdentityOptions{Options: dhcpv6.Options{&dhcpv6.OptStatusCode{StatusCode: iana.StatusNoBinding}}}})},
		"no address for us":      {id, dhcpv6.WithOption(&dhcpv6.OptIANA{Options: dhcpv6.IdentityOptions{Options: dhcpv6.Options{&dhcpv6.OptStatusCode{StatusCode: iana.StatusNoAddrsAvail}}}})},
	} {
		if l, err := leaseFrom6(reply6(t, mods...), true, noon); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("want %q, got %+v, %v", text, l, err)
		}
	}
}

// sane is what everything made from a stranger's answer must be.
func sane(t *testing.T, l *lease) {
	t.Helper()
	if len(l.dns) > maxServers || len(l.ntp) > maxServers || len(l.search) > maxSearch || len(l.routes) > maxRoutes || len(l.remarks) > 8 {
		t.Errorf("unbounded: %+v", l)
	}
	if l.expire != 0 && (l.expire < minLease || l.renew <= 0 || l.renew >= l.rebind || l.rebind >= l.expire) {
		t.Errorf("times %v %v %v", l.renew, l.rebind, l.expire)
	}
	if l.mtu != 0 && (l.mtu < minMTU || l.mtu > maxMTU) || l.hostname != "" && !validHostname(l.hostname) {
		t.Errorf("mtu %d, hostname %q", l.mtu, l.hostname)
	}
	if l.address.IsValid() && !global(l.address.Addr()) {
		t.Errorf("address %s", l.address)
	}
	text := resolvConf(describe(Config{}, []view{{link: link{name: "eth0", carrier: true, addrs: []address{{prefix: l.address, ready: true}}}, lease4: l}}))
	for line := range strings.Lines(text) {
		word, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if _, err := netip.ParseAddr(rest); word == "nameserver" && err != nil || word != "nameserver" && word != "search" && word != "#" || len(line) > 300 {
			t.Errorf("resolv.conf holds %q", line)
		}
	}
	for _, c := range text + strings.Join(l.remarks, "") {
		if c != '\n' && (c < ' ' || c > '~') {
			t.Errorf("%q in %q %q", c, text, l.remarks)
		}
	}
}

// FuzzLeaseFrom4 mutates the options of an answer whose header is good, since that is where the variety is.
func FuzzLeaseFrom4(f *testing.F) {
	const header = 240 // up to the options, with the magic cookie
	for _, m := range []*dhcpv4.DHCPv4{
		ack(f),
		ack(f, dhcpv4.WithDomainSearchList("a.example"), raw(dhcpv4.OptionClasslessStaticRoute, "\x00\x0a\x80\x00\x01")),
		ack(f, raw(dhcpv4.OptionInterfaceMTU, "\x05\x78"), dhcpv4.WithDNS(net.IPv4(9, 9, 9, 9)), raw(dhcpv4.OptionHostName, "n")),
	} {
		f.Add(uint32(0x0a090032), m.ToBytes()[header:])
	}
	good := ack(f).ToBytes()[:header]
	f.Fuzz(func(t *testing.T, yours uint32, options []byte) {
		b := append(slices.Clone(good), options...)
		binary.BigEndian.PutUint32(b[16:], yours)
		m, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		if l, err := leaseFrom4(m, noon); err == nil {
			sane(t, l)
		}
	})
}

func FuzzLeaseFrom6(f *testing.F) {
	id := dhcpv6.WithServerID(&dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}})
	f.Add(reply6(f, id, dhcpv6.WithIANA(dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP("fd00::1"), ValidLifetime: time.Hour}), dhcpv6.WithDNS(net.ParseIP("fd00::53")), dhcpv6.WithDomainSearchList("a.example")).ToBytes(), true)
	f.Add(reply6(f, id, dhcpv6.WithInformationRefreshTime(time.Hour)).ToBytes(), false)
	f.Fuzz(func(t *testing.T, b []byte, stateful bool) {
		m, err := dhcpv6.MessageFromBytes(b)
		if err != nil {
			return
		}
		if l, err := leaseFrom6(m, stateful, noon); err == nil {
			sane(t, l)
			if stateful != l.address.IsValid() {
				t.Errorf("stateful %v, address %v", stateful, l.address)
			}
		}
	})
}
