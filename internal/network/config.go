package network

import "net/netip"

// Bounds of a configuration. A kernel command line is 4 KiB at most on the machines we know, so these
// only keep a mistake from becoming a loop.
const (
	maxLinks   = 16 // ip= parameters
	maxServers = 8  // DNS or NTP servers from one source
	maxSearch  = 6  // search domains, as glibc's resolver takes
	maxRoutes  = 64 // classless static routes of one lease
)

// Config is what a person said about the network. The zero value means: ask by DHCP, and listen to
// IPv6 routers, on every link that has a carrier.
type Config struct {
	// Off leaves every link but lo alone (ip=off and nothing else).
	Off bool `json:"off,omitempty"`
	// Links are the ip= parameters, in order. With any of them, links that they don't name stay down.
	Links []LinkConfig `json:"links,omitempty"`
	// DNS are the servers of nameserver=. They come before those that a link learns.
	DNS []netip.Addr `json:"dns,omitempty"`
	// Boot is the link whose default route is preferred (bootdev= or BOOTIF=).
	Boot BootLink `json:"boot,omitzero"`
}

// BootLink names one link by its name or by its address on the wire; both "" name none.
type BootLink struct {
	Name string `json:"name,omitempty"`
	MAC  string `json:"mac,omitempty"` // lower case, with colons
}

// Method says how a link gets its addresses.
type Method string

// The methods.
const (
	// MethodAny asks by DHCP for IPv4 and does what IPv6 routers say.
	MethodAny Method = "any"
	// MethodDHCP asks by DHCP for IPv4.
	MethodDHCP Method = "dhcp"
	// MethodAuto6 does what IPv6 routers say.
	MethodAuto6 Method = "auto6"
	// MethodDHCP6 asks by DHCPv6 even where no router says so.
	MethodDHCP6 Method = "dhcp6"
	// MethodStatic takes the address of the configuration.
	MethodStatic Method = "static"
)

// LinkConfig is one ip= parameter.
type LinkConfig struct {
	// Device is the link's name. "" means every physical link, and for MethodStatic the first of
	// them that has a carrier.
	Device string `json:"device,omitempty"`
	Method Method `json:"method"`
	// Address with its prefix length, and Gateway, are for MethodStatic; Gateway may be missing.
	Address netip.Prefix `json:"address,omitzero"`
	Gateway netip.Addr   `json:"gateway,omitzero"`
	// Hostname is what the parameter calls this machine, or "".
	Hostname string `json:"hostname,omitempty"`
	// MTU in bytes; 0 leaves the link's own.
	MTU int          `json:"mtu,omitempty"`
	DNS []netip.Addr `json:"dns,omitempty"`
	NTP []netip.Addr `json:"ntp,omitempty"`
}

// Param is one parameter of the kernel's command line: the name before the first "=" and the value
// after it, without the quotes.
type Param struct{ Name, Value string }

// spec is what one link shall have, from all parameters that speak of it.
type spec struct {
	dhcp4, auto6, dhcp6 bool
	static              []LinkConfig
	mtu                 int
}

// add puts one parameter into the specification.
func (s *spec) add(c LinkConfig) {
	switch c.Method {
	case MethodAny:
		s.dhcp4, s.auto6 = true, true
	case MethodDHCP:
		s.dhcp4 = true
	case MethodAuto6:
		s.auto6 = true
	case MethodDHCP6:
		s.dhcp6 = true
	case MethodStatic:
		s.static = append(s.static, c)
	}
	if c.MTU != 0 {
		s.mtu = c.MTU
	}
}

// specFor says what l shall have, and false for a link that isn't ours to touch. anywhere is the
// index of the link that takes static addresses which name no link, 0 while none does.
func (c Config) specFor(l link, anywhere int) (spec, bool) {
	var s spec
	switch {
	case c.Off || l.loopback:
		return s, false
	case len(c.Links) == 0:
		s.add(LinkConfig{Method: MethodAny})
		return s, l.physical()
	}
	named, unnamed := false, false
	for _, lc := range c.Links {
		if lc.Device == l.name {
			s.add(lc)
			named = true
		}
	}
	if named {
		return s, true
	}
	for _, lc := range c.Links {
		if lc.Device != "" || !l.physical() {
			continue
		}
		// A link without a carrier is brought up for a static address too: that is how its
		// carrier is found.
		unnamed = true
		if lc.Method != MethodStatic || l.index == anywhere {
			s.add(lc)
		}
	}
	return s, unnamed
}

// prefers reports whether l is the link that the machine was booted from.
func (b BootLink) prefers(l link) bool {
	return b.Name != "" && b.Name == l.name || b.MAC != "" && b.MAC == l.mac.String()
}
