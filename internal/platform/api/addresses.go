package api

import (
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// maxAddresses bounds how many addresses a limiter remembers one by one. Those beyond share one allowance,
// so that many addresses can't fill the memory.
const maxAddresses = 8192

// addressLimiter lets each address make burst calls at once, and one more with each interval that passes.
// An IPv6 network of 64 bits counts as one address, as one machine may have all of it.
type addressLimiter struct {
	burst    int
	interval time.Duration
	now      func() time.Time

	mu sync.Mutex
	// free maps an address to the time at which it has its whole burst again.
	free map[netip.Prefix]time.Time
	// swept is when those that had their whole burst were forgotten last.
	swept time.Time
}

func newAddressLimiter(burst int, interval time.Duration, now func() time.Time) *addressLimiter {
	return &addressLimiter{burst: burst, interval: interval, now: now, free: map[netip.Prefix]time.Time{}}
}

// allow reports whether the caller of r may make one more call, which counts then, or else how long it has to wait.
func (l *addressLimiter) allow(r *http.Request) (wait time.Duration, ok bool) { return l.ask(r, true) }

// may is allow for a call that doesn't count yet.
func (l *addressLimiter) may(r *http.Request) (wait time.Duration, ok bool) { return l.ask(r, false) }

func (l *addressLimiter) ask(r *http.Request, counts bool) (wait time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	key := l.key(networkOf(r.RemoteAddr), now)
	free := l.free[key]
	if l.rested(free, now) {
		free = now
	}
	if over := free.Add(l.interval).Sub(now) - l.whole(); over > 0 {
		return over, false
	}
	if counts {
		l.free[key] = free.Add(l.interval)
	}
	return 0, true
}

func (l *addressLimiter) whole() time.Duration { return time.Duration(l.burst) * l.interval }

// rested reports whether an address has its whole burst. The clock may be set back, too: nobody waits for
// longer than a whole burst takes.
func (l *addressLimiter) rested(free, now time.Time) bool {
	return !free.After(now) || free.Sub(now) > l.whole()
}

// key returns what an address is remembered by, after forgetting those that have their whole burst. It looks for them once in an
// interval at most: so who has many addresses can't make each call cost a look at all of them.
func (l *addressLimiter) key(network netip.Prefix, now time.Time) netip.Prefix {
	if _, known := l.free[network]; known || len(l.free) < maxAddresses {
		return network
	}
	if since := now.Sub(l.swept); since >= 0 && since < l.interval {
		return netip.Prefix{}
	}
	l.swept = now
	for key, free := range l.free {
		if l.rested(free, now) {
			delete(l.free, key)
		}
	}
	if len(l.free) < maxAddresses {
		return network
	}
	return netip.Prefix{}
}

// Bits of the IPv6 networks that count as one address, and as one site: one customer often has all of the latter.
const (
	networkBits = 64
	siteBits    = 56
)

// networkOf returns the network that an address counts as; what isn't an address is the zero Prefix.
func networkOf(remote string) netip.Prefix { return networkWith(remote, networkBits) }

// networkWith returns the network of so many bits of an IPv6 address, and an IPv4 address by itself.
func networkWith(remote string, bits6 int) netip.Prefix {
	addr, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	ip := addr.Addr().Unmap()
	bits := ip.BitLen()
	if ip.Is6() {
		bits = bits6
	}
	// Nothing but a number of bits beyond the address's is an error.
	network, _ := ip.WithZone("").Prefix(bits)
	return network
}
