package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// errNoLink is the kernel's word that a link isn't there any more.
var errNoLink error = unix.ENODEV

// kernel is the system of the network namespace that the program runs in, by route netlink.
type kernel struct{}

// A list that changes while it is read comes with an error and is read again, this often at most.
const dumpTries = 10

func (k kernel) links() ([]link, error) {
	for try := 1; ; try++ {
		links, err := k.list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) || try == dumpTries {
			return links, err
		}
	}
}

func (kernel) list() ([]link, error) {
	all, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list the network links: %w", err)
	}
	flags, err := inet6Flags()
	if err != nil {
		return nil, fmt.Errorf("list the links' IPv6 state: %w", err)
	}
	out := make([]link, 0, len(all))
	for _, l := range all {
		a := l.Attrs()
		kind := l.Type()
		if kind == "device" {
			kind = ""
		}
		ra, ipv6 := flags[a.Index]
		out = append(out, link{
			index: a.Index, name: a.Name, mac: a.HardwareAddr, mtu: a.MTU, kind: kind,
			ethernet: a.EncapType == "ether",
			loopback: a.RawFlags&unix.IFF_LOOPBACK != 0,
			slave:    a.MasterIndex != 0 || a.RawFlags&unix.IFF_SLAVE != 0,
			up:       a.RawFlags&unix.IFF_UP != 0,
			// Not IFF_RUNNING: the kernel sets that up to a second later (net/core/link_watch.c), and
			// packets pass before.
			carrier: a.RawFlags&(unix.IFF_UP|unix.IFF_LOWER_UP) == unix.IFF_UP|unix.IFF_LOWER_UP,
			ipv6:    ipv6, ra: ra,
		})
	}
	slices.SortFunc(out, func(a, b link) int { return a.index - b.index })
	if err := addAddresses(out); err != nil {
		return nil, err
	}
	return out, addDefaults(out)
}

func byIndex(links []link, index int) *link {
	for i := range links {
		if links[i].index == index {
			return &links[i]
		}
	}
	return nil
}

func addAddresses(links []link) error {
	all, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list the addresses: %w", err)
	}
	for _, a := range all {
		l := byIndex(links, a.LinkIndex)
		ip, ok := netip.AddrFromSlice(a.IP)
		if l == nil || !ok {
			continue
		}
		ones, _ := a.Mask.Size()
		l.addrs = append(l.addrs, address{
			prefix:    netip.PrefixFrom(ip.Unmap(), ones),
			ready:     a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 || a.Flags&unix.IFA_F_OPTIMISTIC != 0,
			permanent: a.Flags&unix.IFA_F_PERMANENT != 0,
		})
	}
	return nil
}

func addDefaults(links []link) error {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return fmt.Errorf("list the routes: %w", err)
		}
		for _, r := range routes {
			if r.Dst != nil {
				if ones, _ := r.Dst.Mask.Size(); ones != 0 {
					continue
				}
			}
			if r.Type != 0 && r.Type != unix.RTN_UNICAST {
				continue
			}
			hops := []*netlink.NexthopInfo{{LinkIndex: r.LinkIndex, Gw: r.Gw}}
			if len(r.MultiPath) > 0 {
				hops = r.MultiPath
			}
			for _, h := range hops {
				if l := byIndex(links, h.LinkIndex); l != nil {
					l.defaults = append(l.defaults, gatewayAddr(family, h.Gw))
				}
			}
		}
	}
	return nil
}

func gatewayAddr(family int, gw net.IP) netip.Addr {
	if a, ok := netip.AddrFromSlice(gw); ok {
		return a.Unmap()
	}
	if family == netlink.FAMILY_V4 {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// inet6Flags returns the IPv6 state of every link on which IPv6 is on.
func inet6Flags() (map[int]raFlags, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfInfomsg(unix.AF_INET6))
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, nil // a kernel without IPv6
		}
		return nil, err
	}
	out := map[int]raFlags{}
	for _, m := range msgs {
		if index, f, ok := parseInet6Link(m); ok {
			out[index] = f
		}
	}
	return out, nil
}

// parseInet6Link reads an RTM_NEWLINK message of the family AF_INET6.
func parseInet6Link(m []byte) (int, raFlags, bool) {
	if len(m) < unix.SizeofIfInfomsg || m[0] != unix.AF_INET6 {
		return 0, raFlags{}, false
	}
	index := int(int32(binary.NativeEndian.Uint32(m[4:])))
	const protinfo, flags6 = unix.IFLA_PROTINFO, 1 // IFLA_INET6_FLAGS
	raw, ok := attr(m[unix.SizeofIfInfomsg:], protinfo)
	if !ok {
		return 0, raFlags{}, false
	}
	if raw, ok = attr(raw, flags6); !ok || len(raw) != 4 {
		return 0, raFlags{}, false
	}
	f := binary.NativeEndian.Uint32(raw)
	const received, managed, other = 0x20, 0x40, 0x80 // IF_RA_RCVD, IF_RA_MANAGED, IF_RA_OTHERCONF of net/if_inet6.h
	return index, raFlags{seen: f&received != 0, managed: f&managed != 0, other: f&other != 0}, true
}

// attr finds one attribute in a list of netlink attributes.
func attr(b []byte, want uint16) ([]byte, bool) {
	for len(b) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(b))
		kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		if size < unix.SizeofRtAttr || size > len(b) {
			return nil, false
		}
		if kind == want {
			return b[unix.SizeofRtAttr:size], true
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return nil, false
}

func handle(index int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

func (kernel) up(index int) error { return netlink.LinkSetUp(handle(index)) }

func (kernel) setMTU(index, mtu int) error { return netlink.LinkSetMTU(handle(index), mtu) }

func (kernel) acceptRouters(name string) error {
	for _, key := range []string{"accept_ra", "autoconf"} {
		path := filepath.Join("/proc/sys/net/ipv6/conf", name, key)
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && strings.TrimSpace(string(text)) != "0" {
			continue
		}
		if err == nil {
			err = os.WriteFile(path, []byte("1\n"), 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func (kernel) putAddress(index int, a netip.Prefix, lifetime time.Duration) error {
	seconds := int(lifetime / time.Second)
	return netlink.AddrReplace(handle(index), &netlink.Addr{IPNet: ipNet(a), ValidLft: seconds, PreferedLft: seconds})
}

func (kernel) dropAddress(index int, a netip.Prefix) error {
	err := netlink.AddrDel(handle(index), &netlink.Addr{IPNet: ipNet(a)})
	if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, errNoLink) {
		return nil
	}
	return err
}

func (r ownRoute) message(index int) *netlink.Route {
	out := &netlink.Route{
		LinkIndex: index, Dst: ipNet(r.to), Priority: r.metric, Table: unix.RT_TABLE_MAIN,
		Protocol: unix.RTPROT_BOOT, Scope: netlink.SCOPE_UNIVERSE,
	}
	if r.dhcp {
		out.Protocol = unix.RTPROT_DHCP
	}
	if r.from.IsValid() {
		out.Src = r.from.AsSlice()
	}
	switch {
	case r.via.IsValid():
		out.Gw = r.via.AsSlice()
		if r.onLink {
			out.Flags = int(netlink.FLAG_ONLINK)
		}
	case r.to.Addr().Is4():
		out.Scope = netlink.SCOPE_LINK
	}
	return out
}

func (kernel) putRoute(index int, r ownRoute) error { return netlink.RouteReplace(r.message(index)) }

func (kernel) dropRoute(index int, r ownRoute) error {
	err := netlink.RouteDel(r.message(index))
	if errors.Is(err, unix.ESRCH) || errors.Is(err, errNoLink) {
		return nil
	}
	return err
}
