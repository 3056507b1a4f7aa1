package network

import (
	"net"
	"net/netip"
	"time"
)

// link is what the kernel says of one network link.
type link struct {
	index int
	name  string
	mac   net.HardwareAddr
	mtu   int
	// kind is the driver family of a virtual link ("veth", "bridge"), "" for hardware.
	kind     string
	ethernet bool // speaks Ethernet frames
	loopback bool
	slave    bool // part of a bond, bridge or failover pair, which has the addresses
	up       bool // switched on
	carrier  bool
	ipv6     bool // IPv6 isn't switched off on it
	ra       raFlags
	addrs    []address
	defaults []netip.Addr // gateways of its default routes; an unspecified one for a route without
}

// address is one address of a link as the kernel has it.
type address struct {
	prefix netip.Prefix
	// ready: other hosts may send to it; not being checked for a duplicate, and not found to be one.
	ready bool
	// permanent addresses have no end; those that routers and leases gave have one.
	permanent bool
}

// raFlags are the kernel's notes on IPv6 routers of a link (linux/if_link.h, IFLA_INET6_FLAGS).
type raFlags struct {
	seen bool
	// managed: addresses are to be had by DHCPv6; other: other facts are (RFC 4861 section 4.2).
	managed, other bool
}

// physical reports whether the link looks like something that a cable or a hypervisor is behind, and
// not like something that somebody built from other links. A container's end of a veth pair is all
// the hardware that it has.
func (l link) physical() bool {
	return l.ethernet && !l.loopback && !l.slave && (l.kind == "" || l.kind == "veth")
}

// linkLocal returns the address that DHCPv6 is spoken from, once it may be used.
func (l link) linkLocal() (netip.Addr, bool) {
	for _, a := range l.addrs {
		if a.ready && a.prefix.Addr().Is6() && a.prefix.Addr().IsLinkLocalUnicast() {
			return a.prefix.Addr(), true
		}
	}
	return netip.Addr{}, false
}

// has returns the link's address a, and whether it may be used by now.
func (l link) has(a netip.Addr) (present, ready bool) {
	for _, have := range l.addrs {
		if have.prefix.Addr() == a {
			return true, have.ready
		}
	}
	return false, false
}

// reaches reports whether the link has a default route of a's IP version.
func (l link) reaches(a netip.Addr) bool {
	for _, gw := range l.defaults {
		if gw.Is4() == a.Is4() {
			return true
		}
	}
	return false
}

// global reports whether a may be talked to from beyond the link.
func global(a netip.Addr) bool { return unicast(a) && !a.IsLinkLocalUnicast() }

// event is something that the kernel tells unasked.
type event struct {
	// changed: links, addresses or routes aren't as they were. What they are now is asked for
	// afresh, so a lost event loses nothing once another one comes.
	changed bool
	// advert is what a router said, nil for other events.
	advert *advert
	// err: no more events will come.
	err error
}

// system is what the manager needs of a kernel.
type system interface {
	// watch sends events until stop is called, which returns when nothing is sent any more. It has
	// begun when watch returns.
	watch() (events <-chan event, stop func(), err error)
	links() ([]link, error)
	up(index int) error
	// acceptRouters lets the kernel follow the advertisements of IPv6 routers on a link.
	acceptRouters(name string) error
	setMTU(index, mtu int) error
	// putAddress sets an address, or the lifetime of one that is there; 0 is for ever.
	putAddress(index int, a netip.Prefix, lifetime time.Duration) error
	dropAddress(index int, a netip.Prefix) error
	putRoute(index int, r ownRoute) error
	dropRoute(index int, r ownRoute) error
}

// ownRoute is a route as we set it.
type ownRoute struct {
	route
	metric int
	from   netip.Addr // the address it prefers to send from
	onLink bool       // the gateway is reached over the link though no prefix says so
	dhcp   bool       // made for a lease; else for a person
}
