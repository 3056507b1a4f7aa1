package network

import (
	"fmt"
	"net/netip"
	"strings"
)

// parseIP reads one value of ip=.
func parseIP(value string) (LinkConfig, error) {
	fields, err := splitFields(value)
	if err != nil {
		return LinkConfig{}, err
	}
	if len(fields) == 1 && methods[fields[0]] != "" {
		m, err := parseMethod(fields[0])
		if err == nil && m == MethodStatic {
			err = fmt.Errorf("%q has no address", fields[0])
		}
		return LinkConfig{Method: m}, err
	}
	// <device>:<method>[:<mtu>], told from the long form by a first field that is no address.
	if _, err := netip.ParseAddr(trimPrefixLen(fields[0])); err != nil && fields[0] != "" {
		if len(fields) == 1 {
			return LinkConfig{}, fmt.Errorf("%.40q is neither a method nor an address", fields[0])
		}
		return parseShort(fields)
	}
	return parseLong(fields)
}

func parseShort(fields []string) (LinkConfig, error) {
	if len(fields) > 3 {
		return LinkConfig{}, fmt.Errorf("%d fields after the link %.40q, two at most", len(fields)-1, fields[0])
	}
	lc := LinkConfig{Device: fields[0]}
	if !validDevice(lc.Device) {
		return lc, fmt.Errorf("%.40q is neither an address nor a link's name", lc.Device)
	}
	var err error
	if lc.Method, err = parseMethod(fields[1]); err != nil {
		return lc, err
	}
	if lc.Method == MethodStatic {
		return lc, fmt.Errorf("%q for the link %s, but no address", fields[1], lc.Device)
	}
	if len(fields) == 3 && fields[2] != "" {
		lc.MTU, err = parseMTU(fields[2])
	}
	return lc, err
}

// The fields of the long form.
const (
	fieldClient = iota
	fieldServer // the NFS server; checked, not used
	fieldGateway
	fieldNetmask
	fieldHostname
	fieldDevice
	fieldMethod
	fieldDNS0 // dracut's MTU when it is a number
	fieldDNS1
	fieldNTP
	fieldCount
)

func parseLong(fields []string) (LinkConfig, error) {
	var lc LinkConfig
	if len(fields) > fieldCount {
		return lc, fmt.Errorf("%d fields, %d at most; setting a link's hardware address isn't supported", len(fields), fieldCount)
	}
	f := make([]string, fieldCount)
	copy(f, fields)
	lc.Device, lc.Hostname = f[fieldDevice], f[fieldHostname]
	if lc.Device != "" && !validDevice(lc.Device) {
		return lc, fmt.Errorf("field 6, %.40q, isn't a link's name", lc.Device)
	}
	if lc.Hostname != "" && !validHostname(lc.Hostname) {
		return lc, fmt.Errorf("field 5, %.80q, isn't a host name", lc.Hostname)
	}
	lc.Method = MethodAny
	if f[fieldClient] != "" {
		lc.Method = MethodStatic
	}
	if word := f[fieldMethod]; word != "" {
		m, err := parseMethod(word)
		switch {
		case err != nil:
			return lc, fmt.Errorf("field 7: %w", err)
		case m == MethodStatic && f[fieldClient] == "":
			return lc, fmt.Errorf("field 7 is %q, but field 1 holds no address", word)
		case m != MethodStatic && f[fieldClient] != "":
			return lc, fmt.Errorf("both an address (field 1) and %q (field 7)", word)
		}
		lc.Method = m
	}
	if f[fieldServer] != "" {
		if _, err := parseHostAddr(f[fieldServer]); err != nil {
			return lc, fmt.Errorf("field 2: %w", err)
		}
	}
	if err := lc.address(f[fieldClient], f[fieldNetmask], f[fieldGateway]); err != nil {
		return lc, err
	}
	return lc, lc.servers(f)
}

// address reads the client's address, its netmask and the gateway.
func (lc *LinkConfig) address(client, mask, gateway string) error {
	if client == "" {
		if gateway != "" || mask != "" {
			return fmt.Errorf("a gateway or netmask without an address")
		}
		return nil
	}
	bare := trimPrefixLen(client)
	a, err := parseHostAddr(bare)
	if err != nil {
		return fmt.Errorf("field 1: %w", err)
	}
	if bare != client {
		if mask != "" {
			return fmt.Errorf("a prefix length in field 1 and a netmask in field 4")
		}
		mask = client[len(bare)+1:]
	}
	bits, err := parseMask(a, mask)
	if err != nil {
		return fmt.Errorf("field 4: %w", err)
	}
	lc.Address = netip.PrefixFrom(a, bits)
	if gateway == "" {
		return nil
	}
	if lc.Gateway, err = parseHostAddr(gateway); err != nil {
		return fmt.Errorf("field 3: %w", err)
	}
	if lc.Gateway.Is4() != a.Is4() {
		return fmt.Errorf("field 3, %s, and field 1, %s, are of different IP versions", lc.Gateway, a)
	}
	if lc.Gateway == a {
		return fmt.Errorf("field 3, %s, is the address of field 1", lc.Gateway)
	}
	return nil
}

// servers reads the fields after the method.
func (lc *LinkConfig) servers(f []string) error {
	for i := fieldDNS0; i < fieldCount; i++ {
		if f[i] == "" {
			continue
		}
		if i == fieldDNS0 && !strings.ContainsAny(f[i], ".:") {
			mtu, err := parseMTU(f[i])
			if err != nil {
				return fmt.Errorf("field %d: %w", i+1, err)
			}
			lc.MTU = mtu
			continue
		}
		a, err := parseHostAddr(f[i])
		if err != nil {
			return fmt.Errorf("field %d: %w", i+1, err)
		}
		if i == fieldNTP {
			lc.NTP = append(lc.NTP, a)
		} else {
			lc.DNS = append(lc.DNS, a)
		}
	}
	return nil
}

// splitFields splits at colons outside of brackets and removes the brackets.
func splitFields(value string) ([]string, error) {
	if len(value) > 512 {
		return nil, fmt.Errorf("%d bytes long, 512 at most", len(value))
	}
	var fields []string
	var field strings.Builder
	open := false
	for i := range len(value) {
		switch c := value[i]; {
		case c == '[' && !open && field.Len() == 0:
			open = true
		case c == ']' && open:
			open = false
		case c == '[' || c == ']':
			return nil, fmt.Errorf("a bracket out of place at byte %d", i+1)
		case c == ':' && !open:
			fields = append(fields, field.String())
			field.Reset()
		default:
			field.WriteByte(c)
		}
	}
	if open {
		return nil, fmt.Errorf("a bracket isn't closed")
	}
	return append(fields, field.String()), nil
}
