package network

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// The options of a router's advertisement that the kernel hands on instead of using them (RFC 8106).
const (
	optRDNSS = 25
	optDNSSL = 31
)

// advert is what one router's advertisement says about DNS. A lifetime of 0 takes it back.
type advert struct {
	index    int // of the link
	dns      []netip.Addr
	search   []string
	lifetime time.Duration
}

// parseNDUserOpt reads the payload of an RTM_NEWNDUSEROPT message (struct nduseroptmsg of
// linux/rtnetlink.h and one option): false for what isn't a well-formed RDNSS or DNSSL option. The
// kernel checked the advertisement's source and hop limit; its content is anybody's on the link.
func parseNDUserOpt(b []byte) (advert, bool) {
	const header = 16 // family, pad, opts_len, ifindex, icmp_type, icmp_code, pads
	if len(b) < header {
		return advert{}, false
	}
	ad := advert{index: int(int32(binary.NativeEndian.Uint32(b[4:])))}
	size := int(binary.NativeEndian.Uint16(b[2:]))
	const routerAdvertisement = 134
	if b[8] != routerAdvertisement || size > len(b)-header || ad.index <= 0 {
		return advert{}, false
	}
	opt := b[header : header+size]
	// type, length in units of 8 bytes, 2 reserved bytes, lifetime in seconds
	if len(opt) < 8 || int(opt[1])*8 != len(opt) {
		return advert{}, false
	}
	ad.lifetime = time.Duration(binary.BigEndian.Uint32(opt[4:])) * time.Second
	switch opt[0] {
	case optRDNSS:
		for rest := opt[8:]; len(rest) >= 16; rest = rest[16:] {
			if a := netip.AddrFrom16([16]byte(rest)); unicast(a) {
				ad.dns = appendNew(ad.dns, maxServers, a)
			}
		}
		return ad, len(ad.dns) > 0
	case optDNSSL:
		ad.search = searchDomains(labels(opt[8:]))
		return ad, len(ad.search) > 0
	default:
		return advert{}, false
	}
}

// labels reads domain names of length-prefixed labels (RFC 1035 section 3.1, without compression, which
// RFC 8106 forbids), up to the zeroes at the end or the first thing that isn't one.
func labels(b []byte) []string {
	var names []string
	var name []byte
	for len(b) > 0 && len(names) < 2*maxSearch {
		n := int(b[0])
		switch {
		case n == 0 && len(name) == 0:
			return names
		case n == 0:
			names = append(names, string(name))
			name, b = nil, b[1:]
		case n > 63 || n >= len(b) || len(name)+n > 253:
			return names
		default:
			if len(name) > 0 {
				name = append(name, '.')
			}
			name, b = append(name, b[1:1+n]...), b[1+n:]
		}
	}
	return names
}

// learned is the DNS data of routers on one link, with the end of each piece.
type learned[T comparable] struct {
	items []T
	until []time.Time
}

// put adds or prolongs items, or takes them back where lifetime is 0, up to limit.
func (l *learned[T]) put(now time.Time, lifetime time.Duration, limit int, items ...T) {
	l.expire(now)
	for _, it := range items {
		l.remove(it)
		if lifetime > 0 && len(l.items) < limit {
			l.items = append(l.items, it)
			l.until = append(l.until, now.Add(lifetime))
		}
	}
}

// expire forgets what has ended at now.
func (l *learned[T]) expire(now time.Time) {
	for i := len(l.items) - 1; i >= 0; i-- {
		if !l.until[i].After(now) {
			l.drop(i)
		}
	}
}

func (l *learned[T]) remove(it T) {
	for i, have := range l.items {
		if have == it {
			l.drop(i)
			return
		}
	}
}

func (l *learned[T]) drop(i int) {
	l.items = append(l.items[:i:i], l.items[i+1:]...)
	l.until = append(l.until[:i:i], l.until[i+1:]...)
}
