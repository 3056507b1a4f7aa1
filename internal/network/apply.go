package network

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// take acts on what a keeper reports: it sets up a lease, or takes away one that has ended.
func (m *manager) take(r report) {
	for _, h := range m.ours {
		switch r.keeper {
		case h.keep4:
			h.problem4 = m.replace(h, &h.lease4, r)
			return
		case h.keep6:
			h.problem6 = m.replace(h, &h.lease6, r)
			return
		}
	}
	// A keeper that was stopped meanwhile; its link looks after itself.
}

// replace puts r's lease in the place of *old, and returns the problem that is left.
func (m *manager) replace(h *held, old **lease, r report) string {
	was := *old
	if r.err != nil && r.lease != nil && r.lease == was {
		return r.err.Error() // what is set up stays
	}
	*old = r.lease
	if was != nil && was.address.IsValid() && (r.lease == nil || was.address != r.lease.address) {
		if was.source == SourceDHCP {
			m.putRoutes(h, nil)
		}
		m.attempt(h.link.name, "remove "+was.address.String(), m.system.dropAddress(h.link.index, was.address))
	}
	if r.lease == nil {
		text := ""
		if r.err != nil {
			text = r.err.Error()
		}
		if was != nil {
			m.console.remark(fmt.Sprintf("network: %s lost %s: %s", h.link.name, was.address, text))
		}
		return text
	}
	for _, remark := range r.lease.remarks {
		m.console.remark(fmt.Sprintf("network: %s: the DHCP server's answer holds %s; left out", h.link.name, remark))
	}
	m.put(h, r.lease)
	return ""
}

// put sets up a lease, or prolongs it.
func (m *manager) put(h *held, l *lease) {
	if l.mtu != 0 && h.spec.mtu == 0 && l.mtu != h.link.mtu {
		if l.mtu < minMTU6 && h.link.ipv6 {
			m.console.remark(fmt.Sprintf("network: %s: the DHCP server's MTU of %d bytes would switch IPv6 off; left out", h.link.name, l.mtu))
		} else {
			m.attempt(h.link.name, fmt.Sprintf("set the MTU to %d", l.mtu), m.system.setMTU(h.link.index, l.mtu))
		}
	}
	if !l.address.IsValid() {
		return
	}
	var left time.Duration
	if end := l.until(); !end.IsZero() {
		left = max(time.Until(end), time.Second) // the kernel takes 0 for "for ever"
	}
	if !m.attempt(h.link.name, "set "+l.address.String(), m.system.putAddress(h.link.index, l.address, left)) {
		return
	}
	if l.source == SourceDHCP {
		routes := make([]ownRoute, 0, len(l.routes))
		for _, r := range l.routes {
			routes = append(routes, h.own(r, l.address, true))
		}
		m.putRoutes(h, routes)
	}
}

// own makes a route of ours from one of a lease or a configuration with the address a.
func (h *held) own(r route, a netip.Prefix, dhcp bool) ownRoute {
	o := ownRoute{route: r, metric: metric(h, dhcp), dhcp: dhcp, onLink: r.via.IsValid() && !a.Masked().Contains(r.via)}
	if a.Addr().Is4() { // IPv6 chooses by itself, and refuses one that is still being checked
		o.from = a.Addr()
	}
	return o
}

// metric is a route's: what a person said goes before leases, the link that was booted from before others,
// and these by their number, so that the same link wins each time. IPv6 routers' have the kernel's 1024.
func metric(h *held, dhcp bool) int {
	base := 100
	if dhcp {
		base = 1024
	}
	if h.preferred {
		return base - 50
	}
	return base + min(h.link.index, 800)
}

// putRoutes sets the routes of the DHCP lease and removes those of the one before.
func (m *manager) putRoutes(h *held, routes []ownRoute) {
	for _, r := range h.routes4 {
		if !slices.Contains(routes, r) {
			m.attempt(h.link.name, "remove the route to "+r.to.String(), m.system.dropRoute(h.link.index, r))
		}
	}
	h.routes4 = routes
	// Routes on the link first: a gateway may be reached by them.
	for _, onLink := range []bool{true, false} {
		for _, r := range routes {
			if r.via.IsValid() != onLink {
				m.attempt(h.link.name, "set the route to "+r.to.String(), m.system.putRoute(h.link.index, r))
			}
		}
	}
}

// putStatic sets the addresses of the configuration; false where one couldn't be, for another try.
func (m *manager) putStatic(h *held) bool {
	ok := true
	for _, c := range h.spec.static {
		if !m.attempt(h.link.name, "set "+c.Address.String(), m.system.putAddress(h.link.index, c.Address, 0)) {
			ok = false
			continue
		}
		if c.Gateway.IsValid() {
			all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
			if c.Gateway.Is6() {
				all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
			}
			r := h.own(route{to: all, via: c.Gateway}, c.Address, false)
			ok = m.attempt(h.link.name, "set the gateway "+c.Gateway.String(), m.system.putRoute(h.link.index, r)) && ok
		}
	}
	return ok
}

// views returns what is known of every link that is ours, by the links' numbers, and the problems.
func (m *manager) views(now time.Time) ([]view, []string) {
	held := make([]*held, 0, len(m.ours))
	for _, h := range m.ours {
		held = append(held, h)
	}
	slices.SortFunc(held, byPreference)
	var views []view
	var problems []string
	for _, h := range held {
		h.dns.expire(now)
		h.search.expire(now)
		views = append(views, view{
			link: h.link, spec: h.spec, lease4: h.lease4, lease6: h.lease6,
			dns: slices.Clone(h.dns.items), search: slices.Clone(h.search.items),
		})
		for _, p := range []string{h.problem4, h.problem6} {
			if p != "" {
				problems = appendNew(problems, 4, p)
			}
		}
	}
	return views, problems
}

func byPreference(a, b *held) int {
	switch {
	case a.preferred && !b.preferred:
		return -1
	case b.preferred && !a.preferred:
		return 1
	}
	return a.link.index - b.link.index
}

// writeResolv writes the resolver's file when it would change.
func (m *manager) writeResolv(s State) {
	text := resolvConf(s)
	if text == "" || text == m.resolv {
		return
	}
	if err := writeResolvConf(m.options.ResolvConf, text); err != nil {
		m.console.remark("network: " + err.Error())
		return
	}
	m.resolv = text
}
