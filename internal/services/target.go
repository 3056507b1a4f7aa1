package services

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/module"
)

// Target is what a health check asks.
type Target struct {
	// Method is GET, POST, PUT, TCP or MethodExec.
	Method string
	// Endpoint is a URL, "host:port" for TCP, or a command line.
	Endpoint string
}

// ParseTarget reads the method and endpoint of a health check. An endpoint may leave out what the service's first TCP port and
// this machine give: "/healthz", ":8080/healthz", "8080"; for TCP it may be empty. A check never leaves the machine.
func ParseTarget(method, endpoint string, ports []module.Port) (Target, error) {
	switch method {
	case "GET", "POST", "PUT":
		return httpTarget(method, endpoint, ports)
	case "TCP":
		hostPort, err := localHostPort(strings.TrimPrefix(endpoint, "tcp://"), ports)
		return Target{method, hostPort}, err
	case MethodExec:
		_, err := words(endpoint, nil)
		if err != nil && strings.Contains(endpoint, "$") {
			err = nil // variables are the service's; the unit's writer knows them
		}
		return Target{method, endpoint}, err
	}
	return Target{}, refused("use GET, POST, PUT, TCP or EXEC", "the health method %.40q", method)
}

func httpTarget(method, endpoint string, ports []module.Port) (Target, error) {
	scheme, rest := "http", endpoint
	if before, after, ok := strings.Cut(endpoint, "://"); ok {
		scheme, rest = strings.ToLower(before), after
	}
	if scheme != "http" && scheme != "https" {
		return Target{}, refused("write http://, https:// or a path", "health endpoint %.80q", endpoint)
	}
	hostPort, path := rest, "/"
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		hostPort, path = rest[:i], rest[i:]
	}
	hostPort, err := localHostPort(hostPort, ports)
	if err != nil {
		return Target{}, err
	}
	u, err := url.Parse(scheme + "://" + hostPort + path)
	if err != nil || u.User != nil || u.Host != hostPort || u.Fragment != "" {
		return Target{}, refused("write it as /path or http://127.0.0.1:port/path", "health endpoint %.80q", endpoint)
	}
	return Target{method, u.String()}, nil
}

// localHostPort fills in what is missing of host:port.
func localHostPort(s string, ports []module.Port) (string, error) {
	host, port := s, ""
	switch _, err := strconv.ParseUint(s, 10, 16); {
	case err == nil:
		host, port = "", s
	case strings.HasPrefix(s, "[") || strings.Count(s, ":") == 1:
		if h, p, err := net.SplitHostPort(s); err == nil {
			host, port = h, p
		}
	}
	if host == "" || host == "localhost" {
		host = "127.0.0.1"
	}
	if a, err := netip.ParseAddr(host); err != nil || !a.IsLoopback() || a.Zone() != "" {
		return "", refused("write 127.0.0.1, [::1] or localhost, or leave the host out", "a health check stays on the machine, and %.80q isn't on it", s)
	}
	if port == "" {
		i := slices.IndexFunc(ports, func(p module.Port) bool { return p.Protocol == "tcp" || p.Protocol == "" })
		if i < 0 {
			return "", refused("write the port into the endpoint, or list it in exposed_ports", "the health endpoint %.80q names no port", s)
		}
		port = strconv.Itoa(int(ports[i].Port))
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", refused("write a port from 1 to 65535", "the health endpoint's port %.40q", port)
	}
	return net.JoinHostPort(host, port), nil
}

// bodyMax is how much of an answer is read, in bytes: so that the service can finish it.
const bodyMax = 64 << 10

// Probe asks once. It returns what was seen in a few words; the error says that it isn't good. An HTTP answer is good from 200 to 399;
// where one leads isn't followed. The check of a certificate is left out: nobody gives one for this name.
func (t Target) Probe(ctx context.Context, timeout time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if t.Method == "TCP" {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", t.Endpoint)
		if err != nil {
			return "", err
		}
		return "connected", conn.Close()
	}
	request, err := http.NewRequestWithContext(ctx, t.Method, t.Endpoint, http.NoBody)
	if err != nil {
		return "", err
	}
	request.Header.Set("User-Agent", "powernode-agent health check")
	transport := &http.Transport{
		DisableKeepAlives: true, Proxy: nil, MaxResponseHeaderBytes: bodyMax,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, //nolint:gosec // see above; nothing secret is said
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	// A service that is still speaking when the limit is reached is well, too.
	if _, err := io.CopyN(io.Discard, answer.Body, bodyMax); err != nil && ctx.Err() != nil {
		return "", ctx.Err()
	}
	if answer.StatusCode < 200 || answer.StatusCode > 399 {
		return "", fmt.Errorf("it answers %d %s", answer.StatusCode, http.StatusText(answer.StatusCode))
	}
	return fmt.Sprintf("%d %s", answer.StatusCode, http.StatusText(answer.StatusCode)), nil
}
