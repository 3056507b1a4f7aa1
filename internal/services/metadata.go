package services

import (
	"net/netip"
	"slices"
)

// metadata reports whether a cloud answers there who the machine is, and hands out its credentials. Whoever owns a name that a service may talk to
// chooses the name's addresses, and some clouds' name servers have such an address: neither opens it. The addresses are those that
// are known to us, also the ones that are link-local, as name servers may be:
//   - 169.254.169.254 of most, and the same in IPv6 of OpenStack, Oracle and Akamai;
//   - fd00:ec2::254 of AWS, and its credentials of ECS and EKS: 169.254.170.2, 169.254.170.23, fd00:ec2::23;
//   - fd20:ce::254 of Google, and 169.254.169.252, where its Kubernetes engine has that of workloads;
//   - 168.63.129.16 of Azure, which is a name server, too, and hands out what extensions of the machine are configured with;
//   - 100.100.100.200 and fd00:100::100:200 of Alibaba, 169.254.0.23 of Tencent, 192.0.0.192 of Oracle's older one, 169.254.42.42 and
//     fd00:42::42 of Scaleway.
func metadata(a netip.Addr) bool {
	return slices.Contains([]netip.Addr{
		netip.AddrFrom4([4]byte{169, 254, 169, 254}),
		netip.AddrFrom4([4]byte{169, 254, 169, 252}),
		netip.AddrFrom4([4]byte{169, 254, 170, 2}),
		netip.AddrFrom4([4]byte{169, 254, 170, 23}),
		netip.AddrFrom4([4]byte{169, 254, 0, 23}),
		netip.AddrFrom4([4]byte{169, 254, 42, 42}),
		netip.AddrFrom4([4]byte{168, 63, 129, 16}),
		netip.AddrFrom4([4]byte{100, 100, 100, 200}),
		netip.AddrFrom4([4]byte{192, 0, 0, 192}),
		netip.MustParseAddr("fd00:ec2::254"),
		netip.MustParseAddr("fd00:ec2::23"),
		netip.MustParseAddr("fd20:ce::254"),
		netip.MustParseAddr("fe80::a9fe:a9fe"),
		netip.MustParseAddr("fd00:c1::a9fe:a9fe"),
		netip.MustParseAddr("fd00:a9fe:a9fe::1"),
		netip.MustParseAddr("fd00:100::100:200"),
		netip.MustParseAddr("fd00:42::42"),
	}, plain(a))
}

// plain returns an address without its zone, and the IPv4 one of an IPv6 one that stands for it: as the kernel maps it, and as a network with
// NAT64 translates it (RFC 6052, 64:ff9b::/96).
func plain(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if netip.MustParsePrefix("64:ff9b::/96").Contains(a) {
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	return a
}

// mayBeNamed reports whether the answer of a DNS server opens an address.
func mayBeNamed(a netip.Addr) bool {
	return plain(a).IsGlobalUnicast() && !metadata(a)
}

// openServers splits name servers into those that every service with names talks to, and those that are metadata services and aren't among
// the addresses that its manifest names.
func openServers(servers, named []netip.Addr) (open, closed []netip.Addr) {
	for _, a := range servers {
		if metadata(a) && !slices.Contains(named, a) {
			closed = append(closed, a)
			continue
		}
		open = append(open, a)
	}
	return open, closed
}
