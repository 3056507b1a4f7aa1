package network

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
)

// How often DHCPv6 servers are asked for their servers again where there is no address to renew
// (RFC 8415 section 21.23), and the least and most that an answer may make of it.
const (
	refreshDefault = 24 * time.Hour
	refreshMin     = 10 * time.Minute
	refreshMax     = 7 * 24 * time.Hour
)

// leaseFrom6 turns a DHCPv6 server's answer into a lease. stateful says that an address was asked for;
// without a usable one the answer is then an error.
func leaseFrom6(m *dhcpv6.Message, stateful bool, now time.Time) (*lease, error) {
	l := &lease{source: SourceDHCP6, granted: now}
	if s := m.Options.Status(); s != nil && s.StatusCode != iana.StatusSuccess {
		return nil, fmt.Errorf("it says no (status %d)", s.StatusCode)
	}
	id := m.Options.ServerID()
	if id == nil {
		return nil, fmt.Errorf("it doesn't say which server it is from")
	}
	if l.duid = id.ToBytes(); len(l.duid) > 130 {
		return nil, fmt.Errorf("its server's identifier has %d bytes, 130 at most", len(l.duid))
	}
	l.dns = fromIPs(m.Options.DNS())
	l.ntp = fromIPs(append(m.Options.NTPServers(), m.Options.SNTP()...))
	if labels := m.Options.DomainSearchList(); labels != nil {
		if l.search = searchDomains(labels.Labels); len(l.search) == 0 && len(labels.Labels) > 0 {
			l.remark("search domains that aren't domain names")
		}
	}
	if !stateful {
		refresh := min(max(m.Options.InformationRefreshTime(refreshDefault), refreshMin), refreshMax)
		// What was learned is kept until there is news of it.
		l.renew, l.rebind, l.expire = refresh, refresh*2, refreshMax*52
		return l, nil
	}
	return l, l.address6(m)
}

func (l *lease) address6(m *dhcpv6.Message) error {
	na := m.Options.OneIANA()
	if na == nil {
		return fmt.Errorf("it gives no address")
	}
	if s := na.Options.Status(); s != nil && s.StatusCode == iana.StatusNoBinding {
		return errGone
	} else if s != nil && s.StatusCode != iana.StatusSuccess {
		return fmt.Errorf("it has no address for us (status %d)", s.StatusCode)
	}
	reason := fmt.Errorf("it gives no address")
	for _, ia := range na.Options.Addresses() {
		a, ok := fromIP(ia.IPv6Addr)
		switch {
		case !ok || !a.Is6() || a.IsLinkLocalUnicast():
			reason = fmt.Errorf("it gives %s, which can't be a machine's address", ia.IPv6Addr)
			continue
		case ia.ValidLifetime < minLease:
			reason = fmt.Errorf("its lease of %s is shorter than %s", ia.ValidLifetime, minLease)
			continue
		}
		// A lease says who is there, not what is on the link: that is the router's word (RFC 5942).
		l.address = netip.PrefixFrom(a, 128)
		if ia.ValidLifetime != dhcpv6Infinity {
			l.times(na.T1, na.T2, ia.ValidLifetime)
		}
		return nil
	}
	return reason
}

// dhcpv6Infinity is the lifetime that doesn't end (RFC 8415 section 7.7).
const dhcpv6Infinity = 0xffffffff * time.Second
