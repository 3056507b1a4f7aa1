package network

import (
	"net/netip"
	"time"
)

// Source says where an address comes from.
type Source string

// The sources.
const (
	SourceStatic   Source = "static"   // ip= of the kernel command line
	SourceDHCP     Source = "dhcp"     // a DHCPv4 lease
	SourceRA       Source = "ra"       // an IPv6 router's advertisement
	SourceDHCP6    Source = "dhcp6"    // a DHCPv6 lease
	SourceExisting Source = "existing" // was there before us
)

// lease is what one link was given, validated: nothing in it needs a second look.
type lease struct {
	source   Source
	address  netip.Prefix // invalid where only servers were given (DHCPv6 without addresses)
	routes   []route
	dns, ntp []netip.Addr
	search   []string
	hostname string
	mtu      int // 0: none given

	// renew, rebind and expire are counted from granted; expire 0 is a lease that doesn't end.
	granted               time.Time
	renew, rebind, expire time.Duration

	server netip.Addr // DHCPv4: whom to ask for renewal
	duid   []byte     // DHCPv6: the same
	// remarks say what in the answer was left out, for the console.
	remarks []string
}

// route is one route over the link of its lease; an invalid via means that the destination is on the link.
type route struct {
	to  netip.Prefix
	via netip.Addr
}

// until returns when the lease ends; the zero time is never.
func (l *lease) until() time.Time {
	if l.expire == 0 {
		return time.Time{}
	}
	return l.granted.Add(l.expire)
}

// A lease shorter than minLease would have us ask all the time; whoever offers one is broken or hostile.
// One longer than maxLease is asked for again by then anyway.
const (
	minLease = 20 * time.Second
	maxLease = 10 * 365 * 24 * time.Hour
)

// times sets the three times from what the server said, 0 for what it didn't say. Times that make no
// sense together are replaced by RFC 2131's (section 4.4.5): half and seven eighths.
func (l *lease) times(renew, rebind, expire time.Duration) {
	if expire > maxLease {
		expire = maxLease
	}
	if rebind < expire/4 || rebind >= expire {
		rebind = expire / 8 * 7
	}
	if renew < expire/8 || renew >= rebind {
		renew = min(expire/2, rebind/8*7)
	}
	l.renew, l.rebind, l.expire = renew, rebind, expire
}

// phase is where in its life a lease is.
type phase uint8

const (
	phaseBound  phase = iota // nothing to do before the returned time
	phaseRenew               // ask the server that gave it
	phaseRebind              // ask any server
	phaseOver                // it has ended
)

// next says what is to be done about l at now, when it was last asked for at asked, and when to look
// again. Between two questions half of the time that is left passes, a minute at least (RFC 2131
// section 4.4.5), or what is left where that is less.
func (l *lease) next(now, asked time.Time) (phase, time.Time) {
	age := now.Sub(l.granted)
	end := l.renew
	p := phaseBound
	switch {
	case l.expire == 0:
		return phaseBound, time.Time{}
	case age >= l.expire:
		return phaseOver, now
	case age >= l.rebind:
		p, end = phaseRebind, l.expire
	case age >= l.renew:
		p, end = phaseRenew, l.rebind
	}
	deadline := l.granted.Add(end)
	if p == phaseBound {
		return p, deadline
	}
	if asked.Before(l.granted.Add(l.renew)) || p == phaseRebind && asked.Before(l.granted.Add(l.rebind)) {
		return p, now
	}
	wait := max(deadline.Sub(asked)/2, time.Minute)
	again := asked.Add(wait)
	if again.After(deadline) {
		again = deadline
	}
	if !again.After(now) {
		return p, now
	}
	return phaseBound, again
}
