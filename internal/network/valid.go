package network

import (
	"encoding/binary"
	"math/bits"
	"net"
	"net/netip"
	"strings"
)

// An MTU below 576 bytes breaks IPv4 (RFC 791 wants datagrams of that size to pass), one below 1280
// switches IPv6 off (RFC 8200), and nothing that we know carries more than 9216.
const (
	minMTU  = 576
	minMTU6 = 1280
	maxMTU  = 9216
)

// unicast reports whether a can be the address of one other host or of this one on a link.
func unicast(a netip.Addr) bool {
	switch {
	case !a.IsValid(), a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a.Is4In6():
		return false
	case a.Is4():
		// 0.0.0.0/8 and 240.0.0.0/4 with the broadcast address never name a host.
		b := a.As4()
		return b[0] != 0 && b[0] < 240
	default:
		return true
	}
}

// fromIP converts an address of the DHCP library, and says whether it names one host.
func fromIP(ip net.IP) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(ip)
	a = a.Unmap()
	return a, ok && unicast(a)
}

// fromIPs converts a list, leaves out what can't be a server and repetitions, and stops at maxServers.
func fromIPs(ips []net.IP) []netip.Addr {
	var out []netip.Addr
	for _, ip := range ips {
		if a, ok := fromIP(ip); ok {
			out = appendNew(out, maxServers, a)
		}
	}
	return out
}

// appendNew appends the elements that list doesn't hold, up to limit in all.
func appendNew[T comparable](list []T, limit int, more ...T) []T {
next:
	for _, m := range more {
		for _, have := range list {
			if have == m {
				continue next
			}
		}
		if len(list) >= limit {
			return list
		}
		list = append(list, m)
	}
	return list
}

// maskBits counts the ones of an IPv4 netmask, and reports whether they are all at the front.
func maskBits(mask []byte) (int, bool) {
	if len(mask) != 4 {
		return 0, false
	}
	v := binary.BigEndian.Uint32(mask)
	ones := bits.LeadingZeros32(^v)
	return ones, v<<ones == 0
}

// validDevice reports whether name can be a link's (dev_valid_name and IFNAMSIZ of the kernel), and is
// printable ASCII at that.
func validDevice(name string) bool {
	if name == "" || len(name) > 15 || name == "." || name == ".." {
		return false
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c > '~' || c == '/' || c == ':' {
			return false
		}
	}
	return true
}

// validDomain reports whether name is one of RFC 1123: labels of letters, digits and inner hyphens, and
// nothing that could be taken for an address.
func validDomain(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			c := label[i] | 0x20
			if (c < 'a' || c > 'z') && (label[i] < '0' || label[i] > '9') && label[i] != '-' {
				return false
			}
		}
	}
	_, err := netip.ParseAddr(name)
	return err != nil
}

// validHostname reports whether name can be this machine's: a domain name of at most 64 bytes (the
// kernel's __NEW_UTS_LEN) that doesn't say localhost.
func validHostname(name string) bool {
	first, _, _ := strings.Cut(name, ".")
	return len(name) <= 64 && validDomain(name) && !strings.EqualFold(first, "localhost")
}

// searchDomains keeps the domains that are valid, without the dot at the end, up to maxSearch.
func searchDomains(names []string) []string {
	var out []string
	for _, n := range names {
		if n = strings.ToLower(strings.TrimSuffix(n, ".")); validDomain(n) {
			out = appendNew(out, maxSearch, n)
		}
	}
	return out
}
