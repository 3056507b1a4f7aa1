package platform

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
)

func stack() string { return string(debug.Stack()) }

// ParsePublicURL reads the URL by which nodes and operators reach the platform: https, a host, a
// port or not, and nothing behind it.
func ParsePublicURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, fault.New(fault.Refuse, fault.Input, "give it as https://host:port", "public URL: %w", err)
	case u.Scheme != "https" || u.Host == "" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return nil, fault.New(fault.Refuse, fault.Input, "give it as https://host:port", "public URL %.200q: want https and a host, and nothing behind it", s)
	}
	return &url.URL{Scheme: "https", Host: strings.ToLower(u.Host)}, nil
}

// publicHost returns the host and port to reach a listening address by. One that listens
// everywhere is reached by the machine's name.
func publicHost(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = machineName()
	}
	return net.JoinHostPort(host, port)
}

// machineName returns the machine's host name, or "localhost" where it has none.
func machineName() string {
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "localhost"
	}
	return strings.ToLower(name)
}

// serverNames returns what the server certificate is for: the public name, the listening address
// (every address of the machine where it listens everywhere), the loopback names, and further.
func serverNames(public string, addr net.Addr, further []string) []string {
	names := []string{public, "localhost", "127.0.0.1", "::1"}
	if tcp, ok := addr.(*net.TCPAddr); ok {
		if tcp.IP.IsUnspecified() {
			names = append(names, machineName())
			// Without the interfaces' addresses the names above still work.
			addrs, _ := net.InterfaceAddrs()
			for _, a := range addrs {
				if ip, ok := a.(*net.IPNet); ok && !ip.IP.IsLinkLocalUnicast() {
					names = append(names, ip.IP.String())
				}
			}
		} else {
			names = append(names, tcp.IP.String())
		}
	}
	for _, name := range further {
		names = append(names, strings.ToLower(name))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// CheckName refuses what can't be in a server certificate.
func CheckName(name string) error {
	if net.ParseIP(name) != nil {
		return nil
	}
	bad := len(name) > 253 || name == ""
	for label := range strings.SplitSeq(name, ".") {
		bad = bad || label == "" || len(label) > 63 || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") ||
			strings.ContainsFunc(label, func(c rune) bool {
				return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_'
			})
	}
	if bad {
		return fault.New(fault.Refuse, fault.Input, "give a host name or an IP address", "TLS name %s", fmt.Sprintf("%.200q", name))
	}
	return nil
}
