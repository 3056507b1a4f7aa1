package network

import (
	"fmt"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// situation is all that the judge looks at.
type situation struct {
	config Config
	views  []view // of the links that are ours to use
	others int    // links that could be used but that the configuration doesn't name
	// problems are the last reasons why a question brought nothing, by link.
	problems []string

	elapsed time.Duration // since Start
	// usableFor is how long the network has been usable, below 0 while it isn't.
	usableFor               time.Duration
	deadline, settle, grace time.Duration
	dns                     bool // a server is known
}

// verdict is what Wait's callers are told. Neither ready nor err: they go on waiting.
type verdict struct {
	ready bool
	err   error
	// again is when, counted from Start, the same situation may be judged otherwise; 0 for never.
	again time.Duration
}

// counts of what the views show.
type counts struct {
	carriers, lacking, idle []string // names: with a carrier, of them without an address, without a carrier
	v4, v6, asking4         bool
}

func (s situation) count() counts {
	var c counts
	for _, v := range s.views {
		v4, v6 := v.usable()
		c.v4, c.v6 = c.v4 || v4, c.v6 || v6
		switch {
		case !v.link.carrier:
			c.idle = append(c.idle, v.link.name)
			continue
		case !v4 && !v6:
			c.lacking = append(c.lacking, v.link.name)
		}
		c.carriers = append(c.carriers, v.link.name)
		c.asking4 = c.asking4 || v.spec.dhcp4 && !v4
	}
	return c
}

// judge says whether the network can be used, can't, or may be waited for.
func judge(s situation) verdict {
	c := s.count()
	switch {
	case s.config.Off:
		return verdict{err: fault.New(fault.Refuse, fault.Input, "take ip=off from the kernel command line, or boot without a network", "bring the network up: ip=off forbids it")}
	case c.v4:
		return verdict{ready: true}
	case c.v6 && (s.dns && !c.asking4 || s.usableFor >= s.grace):
		// Most platforms are reached by IPv4, and the names of DNS servers come last: a router's
		// advertisement alone is usually the faster half of a network.
		return verdict{ready: true}
	case c.v6:
		return verdict{again: s.elapsed - s.usableFor + s.grace}
	case len(s.views) == 0 && s.others == 0 && s.elapsed >= s.settle:
		return verdict{err: s.fail(c)}
	case s.elapsed >= s.deadline:
		return verdict{err: s.fail(c)}
	case len(s.views) == 0 && s.others == 0:
		return verdict{again: min(s.settle, s.deadline)}
	}
	return verdict{again: s.deadline}
}

// fail says why there is no network and what a person can do.
func (s situation) fail(c counts) error {
	after := s.elapsed.Round(time.Second)
	if len(s.views) == 0 {
		if s.others == 0 {
			return fault.New(fault.Retry, fault.Platform, "add a network card, or its driver to the initramfs", "bring the network up: this machine has no network link")
		}
		return fault.New(fault.Retry, fault.Platform, "name one of its links in ip= of the kernel command line", "bring the network up: none of this machine's links is the one that ip= names, after %s", after)
	}
	if len(c.carriers) == 0 {
		return fault.New(fault.Retry, fault.Platform, "check the cable, or the virtual machine's network", "bring the network up: no link has a carrier (%s) after %s", strings.Join(c.idle, ", "), after)
	}
	why := ""
	if len(s.problems) > 0 {
		why = ": " + strings.Join(s.problems, "; ")
	}
	return fault.New(fault.Retry, fault.Platform, "check the DHCP server, or give the address by ip= on the kernel command line", "bring the network up: %s has no address after %s%s", strings.Join(c.lacking, ", "), after, why)
}

// waiting says what is being waited for, "" for nothing.
func waiting(s situation) string {
	c := s.count()
	switch {
	case s.config.Off || c.v4 || c.v6 && !c.asking4:
		return ""
	case len(s.views) == 0 && s.others == 0:
		return "no network link yet, waiting for one"
	case len(s.views) == 0:
		return "waiting for the link that ip= names"
	case len(c.carriers) == 0:
		return fmt.Sprintf("no link has a carrier (%s), waiting for one", strings.Join(c.idle, ", "))
	}
	var parts []string
	for _, v := range s.views {
		if v.link.carrier {
			if how := v.asks(); how != "" {
				parts = append(parts, v.link.name+" has a carrier, "+how)
			}
		}
	}
	text := strings.Join(parts, "; ")
	if len(s.problems) > 0 {
		text += " (" + strings.Join(s.problems, "; ") + ")"
	}
	return text
}

// asks says what a link with a carrier lacks and how it is got.
func (v view) asks() string {
	v4, v6 := v.usable()
	var how []string
	if v.spec.dhcp4 && !v4 {
		how = append(how, "asking for an address by DHCP")
	}
	if v.spec.auto6 && !v6 && !v4 {
		how = append(how, "listening for an IPv6 router")
	}
	if v.spec.dhcp6 && !v6 && !v4 {
		how = append(how, "asking for an address by DHCPv6")
	}
	if len(how) == 0 && !v4 && !v6 {
		return "setting its address"
	}
	return strings.Join(how, " and ")
}

// upLine is the console's line for a network that can be used.
func upLine(s State) string {
	var parts []string
	for _, l := range s.Links {
		if len(l.Addresses) == 0 || !l.Carrier {
			continue
		}
		var addrs []string
		for i, a := range l.Addresses {
			if i == 4 {
				addrs = append(addrs, fmt.Sprintf("and %d more", len(l.Addresses)-i))
				break
			}
			addrs = append(addrs, fmt.Sprintf("%s (%s)", a.Prefix, a.Source))
		}
		text := l.Name + " has " + strings.Join(addrs, ", ")
		if len(l.Gateways) > 0 {
			text += " by " + l.Gateways[0].String()
		}
		parts = append(parts, text)
	}
	line := strings.Join(parts, "; ")
	if len(s.DNS) == 0 {
		return line + "; no DNS server"
	}
	return line + "; DNS " + s.DNS[0].String()
}
