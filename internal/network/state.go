package network

import (
	"net/netip"
	"time"
)

// State is what the network looks like at one moment.
type State struct {
	// Usable: a link has an address and either a way out or somebody's word that this is all.
	Usable bool `json:"usable"`
	// Took is how long after Start the network first was usable; 0 while it wasn't.
	Took time.Duration `json:"took_ns,omitempty"`
	// Waiting says what is being waited for, as on the console, "" for nothing.
	Waiting string `json:"waiting,omitempty"`
	Links   []Link `json:"links"`
	// DNS, Search, NTP and Hostname are of all links together, a person's before learned ones, each
	// once. What a server of a link said is unauthenticated.
	DNS      []netip.Addr `json:"dns,omitempty"`
	Search   []string     `json:"search,omitempty"`
	NTP      []netip.Addr `json:"ntp,omitempty"`
	Hostname string       `json:"hostname,omitempty"`
}

// Link is one link that could be used.
type Link struct {
	Name      string    `json:"name"`
	MAC       string    `json:"mac,omitempty"`
	MTU       int       `json:"mtu"`
	Carrier   bool      `json:"carrier"`
	Addresses []Address `json:"addresses,omitempty"` // those that may be used by now
	// Gateways are those of the link's default routes.
	Gateways []netip.Addr `json:"gateways,omitempty"`
}

// Address is one address of a link.
type Address struct {
	Prefix netip.Prefix `json:"prefix"`
	Source Source       `json:"source"`
	// Until is when a lease ends; zero for never, and for what the kernel keeps the time of.
	Until time.Time `json:"until,omitzero"`
}

// view is a link with everything that was said and learned about it.
type view struct {
	link           link
	spec           spec
	lease4, lease6 *lease
	dns            []netip.Addr // of routers
	search         []string
}

// sourceOf says where an address of the link comes from, and when its lease ends.
func (v view) sourceOf(a address) (Source, time.Time) {
	for _, s := range v.spec.static {
		if s.Address == a.prefix {
			return SourceStatic, time.Time{}
		}
	}
	for _, l := range []*lease{v.lease4, v.lease6} {
		if l != nil && l.address == a.prefix {
			return l.source, l.until()
		}
	}
	if a.prefix.Addr().Is6() && !a.permanent {
		return SourceRA, time.Time{}
	}
	return SourceExisting, time.Time{}
}

// usable reports whether the link can be used by IPv4 and by IPv6. A person's address and a DHCPv4
// lease are believed as they are; what came by IPv6 routers needs a default route, as otherwise the
// router says that it leads nowhere. So do addresses that were there already.
func (v view) usable() (v4, v6 bool) {
	if !v.link.carrier {
		return false, false
	}
	for _, a := range v.link.addrs {
		ip := a.prefix.Addr()
		if !a.ready || !global(ip) {
			continue
		}
		source, _ := v.sourceOf(a)
		ok := source == SourceStatic || source == SourceDHCP || v.link.reaches(ip)
		v4 = v4 || ok && ip.Is4()
		v6 = v6 || ok && ip.Is6()
	}
	return v4, v6
}

// leases returns those whose address the link still has, and those without one.
func (v view) leases() []*lease {
	var out []*lease
	for _, l := range []*lease{v.lease4, v.lease6} {
		if l == nil {
			continue
		}
		if present, _ := v.link.has(l.address.Addr()); present || !l.address.IsValid() {
			out = append(out, l)
		}
	}
	return out
}

// describe makes the State of all views; Usable, Took and Waiting are the judge's.
func describe(c Config, views []view) State {
	s := State{Links: []Link{}}
	s.DNS = appendNew(s.DNS, maxServers, c.DNS...)
	for _, v := range views {
		for _, lc := range v.spec.static {
			s.merge(v.link.name, lc.DNS, lc.NTP, nil, lc.Hostname)
		}
	}
	for _, lc := range c.Links {
		s.merge("", nil, nil, nil, lc.Hostname)
	}
	for _, v := range views {
		s.Links = append(s.Links, v.describe())
		for _, l := range v.leases() {
			s.merge(v.link.name, l.dns, l.ntp, l.search, l.hostname)
		}
	}
	for _, v := range views {
		s.merge(v.link.name, v.dns, nil, v.search, "")
	}
	return s
}

func (s *State) merge(link string, dns, ntp []netip.Addr, search []string, hostname string) {
	for _, a := range dns {
		s.DNS = appendNew(s.DNS, maxServers, zoned(a, link))
	}
	for _, a := range ntp {
		s.NTP = appendNew(s.NTP, maxServers, zoned(a, link))
	}
	s.Search = appendNew(s.Search, maxSearch, search...)
	if s.Hostname == "" {
		s.Hostname = hostname
	}
}

// zoned ties a link-local IPv6 address to its link.
func zoned(a netip.Addr, link string) netip.Addr {
	if a.Is6() && a.IsLinkLocalUnicast() {
		return a.WithZone(link)
	}
	return a
}

func (v view) describe() Link {
	l := Link{Name: v.link.name, MAC: v.link.mac.String(), MTU: v.link.mtu, Carrier: v.link.carrier}
	for _, a := range v.link.addrs {
		if !a.ready || !global(a.prefix.Addr()) {
			continue
		}
		source, until := v.sourceOf(a)
		l.Addresses = append(l.Addresses, Address{Prefix: a.prefix, Source: source, Until: until})
	}
	for _, gw := range v.link.defaults {
		if !gw.IsUnspecified() {
			l.Gateways = appendNew(l.Gateways, maxServers, zoned(gw, v.link.name))
		}
	}
	return l
}
