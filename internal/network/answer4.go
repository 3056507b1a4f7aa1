package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// leaseFrom4 turns a DHCP server's offer or acknowledgement, which anybody on the link can have sent,
// into a lease. What a node can't do without must be right, else it is an error: the address, the
// netmask and the lease time. Everything else that is wrong is left out, with a remark.
func leaseFrom4(m *dhcpv4.DHCPv4, now time.Time) (*lease, error) {
	l := &lease{source: SourceDHCP, granted: now}
	a, ok := fromIP(m.YourIPAddr)
	switch {
	case !ok || !a.Is4():
		return nil, fmt.Errorf("it gives %s, which can't be a machine's address", m.YourIPAddr)
	case a.IsLinkLocalUnicast():
		return nil, fmt.Errorf("it gives the link-local address %s", a)
	}
	bits, ok := netmask4(m, a)
	if !ok {
		return nil, fmt.Errorf("its netmask %x isn't one", m.Options.Get(dhcpv4.OptionSubnetMask))
	}
	l.address = netip.PrefixFrom(a, bits)
	if bits < 31 && (a == l.address.Masked().Addr() || a == lastOf(l.address)) {
		return nil, fmt.Errorf("it gives %s, which is the network's own or its broadcast address", l.address)
	}
	if l.server, ok = fromIP(m.ServerIdentifier()); !ok {
		return nil, fmt.Errorf("it doesn't say which server it is from")
	}
	if err := l.times4(m); err != nil {
		return nil, err
	}
	l.routes4(m)
	l.servers4(m)
	return l, nil
}

// netmask4 returns the prefix length of option 1 or, where there is none, of the address's class.
func netmask4(m *dhcpv4.DHCPv4, a netip.Addr) (int, bool) {
	if !m.Options.Has(dhcpv4.OptionSubnetMask) {
		bits, err := parseMask(a, "")
		return bits, err == nil
	}
	bits, ok := maskBits(m.Options.Get(dhcpv4.OptionSubnetMask))
	return bits, ok && bits > 0
}

// lastOf returns the last address of an IPv4 prefix, which is its broadcast address.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := range b {
		ones := min(max(p.Bits()-8*i, 0), 8)
		b[i] |= byte(0xff >> ones)
	}
	return netip.AddrFrom4(b)
}

func (l *lease) times4(m *dhcpv4.DHCPv4) error {
	if n := len(m.Options.Get(dhcpv4.OptionIPAddressLeaseTime)); n != 4 {
		return fmt.Errorf("its lease time has %d bytes, not 4", n)
	}
	expire := m.IPAddressLeaseTime(0)
	if expire == dhcpv4.MaxLeaseTime {
		return nil // RFC 2131 section 3.3: infinity
	}
	if expire < minLease {
		return fmt.Errorf("its lease of %s is shorter than %s", expire, minLease)
	}
	l.times(m.IPAddressRenewalTime(0), m.IPAddressRebindingTime(0), expire)
	return nil
}

// routes4 takes option 121 where there is one, which then replaces option 3 (RFC 3442), else the first
// router of option 3.
func (l *lease) routes4(m *dhcpv4.DHCPv4) {
	if raw := m.Options.Get(dhcpv4.OptionClasslessStaticRoute); raw != nil {
		var routes dhcpv4.Routes
		if err := routes.FromBytes(raw); err == nil && len(routes) > 0 {
			l.classless(routes)
			return
		}
		l.remark("classless routes that aren't encoded as RFC 3442 says")
	}
	for _, ip := range m.Router() {
		if via, ok := fromIP(ip); ok && via != l.address.Addr() {
			l.routes = append(l.routes, route{to: netip.PrefixFrom(netip.IPv4Unspecified(), 0), via: via})
			return
		}
	}
	if m.Options.Has(dhcpv4.OptionRouter) {
		l.remark("a router that can't be one")
	}
}

func (l *lease) classless(routes dhcpv4.Routes) {
	// The default route is the one that must not fall victim to the bound.
	slices.SortStableFunc(routes, func(a, b *dhcpv4.Route) int { return defaultFirst(a) - defaultFirst(b) })
	for _, r := range routes {
		if len(l.routes) == maxRoutes {
			l.remark(fmt.Sprintf("%d routes after the first %d", len(routes)-maxRoutes, maxRoutes))
			return
		}
		ones, _ := r.Dest.Mask.Size()
		dest, _ := netip.AddrFromSlice(r.Dest.IP)
		to, err := dest.Prefix(ones)
		via, ok := fromIP(r.Router)
		onLink := r.Router.IsUnspecified()
		if err != nil || !ok && !onLink || via == l.address.Addr() && !onLink ||
			to.Bits() > 0 && !unicast(to.Addr()) {
			l.remark("a route that can't be one")
			continue
		}
		if onLink {
			via = netip.Addr{}
		}
		l.routes = appendNew(l.routes, maxRoutes, route{to: to, via: via})
	}
}

func defaultFirst(r *dhcpv4.Route) int {
	ones, _ := r.Dest.Mask.Size()
	return min(ones, 1)
}

func (l *lease) servers4(m *dhcpv4.DHCPv4) {
	l.dns = fromIPs(m.DNS())
	l.ntp = fromIPs(m.NTPServers())
	names := strings.FieldsFunc(cleanText(m.DomainName()), func(r rune) bool { return r == ' ' })
	if labels := m.DomainSearch(); labels != nil {
		names = append(labels.Labels, names...)
	}
	if l.search = searchDomains(names); len(l.search) == 0 && len(names) > 0 {
		l.remark("search domains that aren't domain names")
	}
	if name := strings.TrimSuffix(cleanText(m.HostName()), "."); name != "" {
		if validHostname(name) {
			l.hostname = name
		} else {
			l.remark("a host name that isn't one")
		}
	}
	if raw := m.Options.Get(dhcpv4.OptionInterfaceMTU); raw != nil {
		l.setMTU(raw)
	}
}

func (l *lease) setMTU(raw []byte) {
	if len(raw) == 2 {
		if mtu := int(raw[0])<<8 | int(raw[1]); mtu >= minMTU && mtu <= maxMTU {
			l.mtu = mtu
			return
		}
	}
	l.remark(fmt.Sprintf("an MTU outside of %d to %d bytes", minMTU, maxMTU))
}

func (l *lease) remark(what string) { l.remarks = appendNew(l.remarks, 8, what) }

// cleanText removes the zero bytes that some servers end a text with, and bounds it.
func cleanText(s string) string {
	if len(s) > 255 {
		s = s[:255]
	}
	return strings.TrimRight(s, "\x00")
}
