package nodehttp

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
)

const (
	maxURL = 2048
	// MaxCABytes and maxCAs bound a pinned CA bundle: a root or two, an intermediate or two, and
	// room to roll them.
	MaxCABytes = 64 << 10
	maxCAs     = 32
)

const hintURL = "give the platform's URL as https://name[:port]"

// ParsePlatformURL checks a platform URL and returns it in the one form that is stored and
// compared: lower-case host, no default port, no trailing slash. Only https is accepted: the
// token and the certificate's authority never travel in clear. A path prefix is kept.
func ParsePlatformURL(s string) (string, error) {
	refuse := func(format string, args ...any) error {
		return fault.New(fault.Refuse, fault.Input, hintURL, "platform URL "+format, args...)
	}
	if len(s) > maxURL {
		return "", refuse("of %d characters is too long, %d are allowed", len(s), maxURL)
	}
	u, err := url.Parse(s)
	if err != nil || u.Opaque != "" || u.Host == "" && u.Scheme == "https" {
		// The parser's own message repeats the text, and that may hold a password.
		if strings.ContainsRune(s, '@') {
			return "", refuse("isn't a URL")
		}
		return "", refuse("%.80q isn't a URL", s)
	}
	switch {
	case u.User != nil:
		return "", refuse("of host %q carries a user name or password", u.Host)
	case u.Scheme == "http":
		return "", refuse("%.200q is refused: http sends the token in clear", s)
	case u.Scheme != "https":
		return "", refuse("%.200q doesn't begin with https://", s)
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", refuse("%.200q has a query or a fragment", s)
	case !validHost(u.Hostname()):
		return "", refuse("%.200q has no valid host name", s)
	}
	host := strings.ToLower(u.Host)
	if strings.HasSuffix(host, ":") {
		return "", refuse("%.200q has an empty port", s)
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return "", refuse("%.200q has no valid port", s)
		}
		if p == "443" {
			host = strings.TrimSuffix(host, ":443")
		}
	}
	dir := strings.TrimRight(u.Path, "/")
	if dir != "" && path.Clean(dir) != dir {
		return "", refuse("%.200q has a path with empty or dot segments", s)
	}
	return (&url.URL{Scheme: "https", Host: host, Path: dir}).String(), nil
}

// validHost accepts an IP address and anything that could be a DNS name; a resolver decides the
// rest.
func validHost(h string) bool {
	if _, err := netip.ParseAddr(h); err == nil {
		return true
	}
	if h == "" || len(h) > 253 {
		return false
	}
	for _, c := range []byte(h) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == '_':
		default:
			return false
		}
	}
	return true
}

// ParseCAs reads a PEM bundle of CA certificates. A block of any other type, a certificate that
// isn't a CA's, or no certificate at all is refused; text between the blocks is allowed.
func ParseCAs(bundle []byte) ([]*x509.Certificate, error) {
	const hint = "give the PEM file of the platform's CA certificate"
	refuse := func(format string, args ...any) error {
		return fault.New(fault.Refuse, fault.Input, hint, "CA certificate: "+format, args...)
	}
	if len(bundle) > MaxCABytes {
		return nil, refuse("%d bytes, more than the %d that are allowed", len(bundle), MaxCABytes)
	}
	var cas []*x509.Certificate
	rest := bundle
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, refuse("the PEM holds a block of type %.40q, only CERTIFICATE belongs there", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, refuse("certificate %d of the PEM doesn't parse: %w", len(cas)+1, err)
		}
		if !cert.BasicConstraintsValid || !cert.IsCA {
			return nil, refuse("certificate %d of the PEM (%s) isn't a CA's", len(cas)+1, clean(cert.Subject.String(), 80))
		}
		if len(cas) == maxCAs {
			return nil, refuse("more than %d certificates", maxCAs)
		}
		cas = append(cas, cert)
	}
	switch {
	case len(cas) == 0:
		return nil, refuse("no PEM certificate in %d bytes", len(bundle))
	case bytes.Contains(rest, []byte("-----BEGIN")):
		return nil, refuse("the PEM is cut off or damaged after certificate %d", len(cas))
	}
	return cas, nil
}
