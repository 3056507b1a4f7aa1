package nodeconfig

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// maxHostname is how long a Linux kernel lets a host name be, in bytes (__NEW_UTS_LEN), maxName how
// long a name by RFC 1123 may be, and maxLabel each of its labels.
const (
	maxHostname = 64
	maxName     = 253
	maxLabel    = 63
)

// CheckHostname returns a host name in lower case, or what is wrong with it. It may have a domain.
func CheckHostname(name string) (string, error) {
	if len(name) > maxHostname {
		return "", fmt.Errorf("host name %.100q has more than %d bytes", name, maxHostname)
	}
	if strings.EqualFold(name, "localhost") || strings.HasPrefix(strings.ToLower(name), "localhost.") {
		return "", fmt.Errorf("host name %q: every machine is called that", name)
	}
	return checkName(name)
}

// checkName returns a name by RFC 1123 in lower case.
func checkName(name string) (string, error) {
	refuse := func(why string) (string, error) { return "", fmt.Errorf("name %.100q: %s", name, why) }
	if name == "" || len(name) > maxName {
		return refuse(fmt.Sprintf("want 1 to %d bytes", maxName))
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return refuse(fmt.Sprintf("want labels of 1 to %d letters, digits and hyphens, which aren't first or last", maxLabel))
		}
		if strings.ContainsFunc(label, func(c rune) bool {
			return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-'
		}) {
			return refuse("want letters, digits, hyphens and dots")
		}
	}
	// RFC 1123, 2.1: what looks like an address is taken for one.
	if last := name[strings.LastIndex(name, ".")+1:]; strings.Trim(last, "0123456789") == "" && strings.Contains(name, ".") {
		return refuse("it looks like an address")
	}
	return strings.ToLower(name), nil
}

// HostnameIn returns the name that a file as /etc/hostname says (hostname(5)): its first line that
// isn't empty or a comment; "" where there is none.
func HostnameIn(file []byte) string {
	for line := range strings.Lines(string(file)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			return line
		}
	}
	return ""
}

// Host is one line of /etc/hosts (hosts(5)).
type Host struct {
	Address netip.Addr
	// Names are in lower case, the canonical one first.
	Names []string
}

// String returns the line.
func (h Host) String() string { return h.Address.String() + " " + strings.Join(h.Names, " ") }

// ParseHosts reads a platform's entries, or says what is wrong with one: then none counts.
func ParseHosts(entries []nodeapi.HostEntry) ([]Host, error) {
	if len(entries) > nodeapi.MaxHosts {
		return nil, fmt.Errorf("%d entries of hosts, more than %d", len(entries), nodeapi.MaxHosts)
	}
	hosts := make([]Host, len(entries))
	seen := make(map[string]bool, len(entries))
	for i, e := range entries {
		h, err := parseHost(e)
		if err == nil && seen[h.String()] {
			err = errors.New("it is listed twice")
		}
		if err != nil {
			return nil, fmt.Errorf("entry %d of %d of hosts: %w", i+1, len(entries), err)
		}
		seen[h.String()] = true
		hosts[i] = h
	}
	return hosts, nil
}

func parseHost(e nodeapi.HostEntry) (Host, error) {
	var h Host
	var err error
	if h.Address, err = netip.ParseAddr(e.Address); err != nil || h.Address.Zone() != "" || h.Address.IsUnspecified() || h.Address.IsMulticast() {
		return h, fmt.Errorf("%.60q isn't the address of a host", e.Address)
	}
	h.Address = h.Address.Unmap()
	if len(e.Names) == 0 || len(e.Names) > nodeapi.MaxHostNames {
		return h, fmt.Errorf("%s has %d names: want 1 to %d", h.Address, len(e.Names), nodeapi.MaxHostNames)
	}
	for _, name := range e.Names {
		if name, err = checkName(name); err != nil {
			return h, err
		}
		if (name == "localhost" || strings.HasPrefix(name, "localhost.")) && !h.Address.IsLoopback() {
			return h, fmt.Errorf("%s can't be %s: programs take that for the machine itself", name, h.Address)
		}
		h.Names = append(h.Names, name)
	}
	return h, nil
}

// ParseHostsFile reads the lines of a file as /etc/hosts, with comments, into what ParseHosts reads.
func ParseHostsFile(file string) []nodeapi.HostEntry {
	entries := []nodeapi.HostEntry{}
	for line := range strings.Lines(file) {
		line, _, _ = strings.Cut(line, "#")
		if fields := strings.Fields(line); len(fields) > 0 {
			entries = append(entries, nodeapi.HostEntry{Address: fields[0], Names: fields[1:]})
		}
	}
	return entries
}
