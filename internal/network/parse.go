package network

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
)

const hintIP = "write ip=dhcp, or ip=<address>::<gateway>:<netmask>:<hostname>:<device>:none"

// Parse reads the network's parameters from the kernel's command line: ip= (several), nameserver=
// (several), bootdev= and BOOTIF=; others are none of its business. The forms of ip= are the kernel's
// (Documentation/admin-guide/nfs/nfsroot.rst: client:server:gateway:netmask:hostname:device:autoconf:
// dns0:dns1:ntp0) and dracut's (ip=<device>:<method>[:<mtu>], an IPv6 address in brackets, a prefix
// length as netmask, an MTU after the method). Errors name the parameter and are Refuse, Input.
func Parse(params []Param) (Config, error) {
	var c Config
	off := false
	for _, p := range params {
		var err error
		switch p.Name {
		case "ip":
			off = off || p.Value == "off" || p.Value == "none"
			err = c.addIP(p.Value)
		case "nameserver":
			err = c.addServer(p.Value)
		case "bootdev":
			c.Boot.Name = p.Value
			if !validDevice(p.Value) {
				err = fmt.Errorf("%.40q isn't a link's name", p.Value)
			}
		case "BOOTIF":
			c.Boot.MAC, err = parseBootif(p.Value)
		}
		if err != nil {
			hint := ""
			if p.Name == "ip" {
				hint = hintIP
			}
			return Config{}, fault.New(fault.Refuse, fault.Input, hint, "read %s=%.200s of the kernel command line: %w", p.Name, fault.OneLine(p.Value), err)
		}
	}
	c.Off = off && len(c.Links) == 0
	return c, nil
}

func (c *Config) addIP(value string) error {
	if value == "off" || value == "none" {
		return nil
	}
	lc, err := parseIP(value)
	if err != nil {
		return err
	}
	if len(c.Links) == maxLinks {
		return fmt.Errorf("more than %d of them", maxLinks)
	}
	c.Links = append(c.Links, lc)
	return nil
}

func (c *Config) addServer(value string) error {
	a, err := parseHostAddr(value)
	if err != nil {
		return err
	}
	if len(c.DNS) == maxServers {
		return fmt.Errorf("more than %d of them", maxServers)
	}
	c.DNS = append(c.DNS, a)
	return nil
}

// parseBootif reads what PXELINUX writes: the hardware type and the address, "01-52-54-00-12-34-56".
func parseBootif(value string) (string, error) {
	mac, err := net.ParseMAC(strings.TrimPrefix(strings.ReplaceAll(value, "-", ":"), "01:"))
	if err != nil || len(mac) != 6 {
		return "", fmt.Errorf("%.40q isn't an Ethernet address", value)
	}
	return mac.String(), nil
}

// methods are the words of the kernel and of dracut that we can do.
var methods = map[string]Method{
	"dhcp": MethodDHCP, "dhcp4": MethodDHCP, "single-dhcp": MethodDHCP,
	"on": MethodAny, "any": MethodAny,
	"auto6": MethodAuto6, "dhcp6": MethodDHCP6,
	"off": MethodStatic, "none": MethodStatic, "static": MethodStatic,
}

func parseMethod(word string) (Method, error) {
	if m, ok := methods[word]; ok {
		return m, nil
	}
	return "", fmt.Errorf("%.40q isn't a method this agent has: dhcp, any, auto6, dhcp6, none", word)
}

func trimPrefixLen(s string) string {
	bare, _, _ := strings.Cut(s, "/")
	return bare
}

// parseHostAddr reads the address of one host, in brackets or bare.
func parseHostAddr(s string) (netip.Addr, error) {
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		s = s[1 : len(s)-1]
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%.60q isn't an IP address", s)
	}
	if a = a.Unmap(); !unicast(a) {
		return netip.Addr{}, fmt.Errorf("%s isn't the address of one host", a)
	}
	return a, nil
}

// parseMask reads a prefix length or a netmask. Without one, IPv6 has 64 bits, and IPv4 the bits of the
// address's old class, as the kernel's documentation promises.
func parseMask(a netip.Addr, mask string) (int, error) {
	if mask == "" {
		switch {
		case a.Is6():
			return 64, nil
		default:
			ones, _ := net.IP(a.AsSlice()).DefaultMask().Size()
			return ones, nil
		}
	}
	if m, err := netip.ParseAddr(mask); err == nil && m.Is4() && a.Is4() {
		if bits, ok := maskBits(m.AsSlice()); ok && bits > 0 {
			return bits, nil
		}
		return 0, fmt.Errorf("%s isn't a netmask", m)
	}
	bits, err := strconv.ParseUint(mask, 10, 8)
	if err != nil || bits < 1 || int(bits) > a.BitLen() {
		return 0, fmt.Errorf("%.40q isn't a netmask or a prefix length", mask)
	}
	return int(bits), nil
}

func parseMTU(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || int(n) < minMTU || int(n) > maxMTU {
		return 0, fmt.Errorf("%.40q isn't an MTU of %d to %d bytes", s, minMTU, maxMTU)
	}
	return int(n), nil
}
