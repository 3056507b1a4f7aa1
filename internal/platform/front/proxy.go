package front

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// Header is a header in which a proxy passes the certificate that a client has shown it.
type Header string

// The headers. One is in use: a proxy sets or drops the one that it knows, and passes on another as a client has sent it.
const (
	// HeaderNginx holds the certificate as PEM in URL encoding, as nginx has it in $ssl_client_escaped_cert.
	HeaderNginx Header = "X-SSL-Client-Cert"
	// HeaderRFC9440 holds it as RFC 9440 says: DER in base64 between colons.
	HeaderRFC9440 Header = "Client-Cert"
	// DefaultHeader is the one in use where nothing is said.
	DefaultHeader = HeaderNginx
)

// Headers returns every header.
func Headers() []Header { return []Header{HeaderNginx, HeaderRFC9440} }

// ParseHeader reads a header's name.
func ParseHeader(name string) (Header, error) {
	for _, h := range Headers() {
		if strings.EqualFold(name, string(h)) {
			return h, nil
		}
	}
	return "", fault.New(fault.Refuse, fault.Input, fmt.Sprintf("use %s or %s", HeaderNginx, HeaderRFC9440), "no proxy passes certificates in %q", name)
}

// ParseProxies reads addresses and networks of trusted proxies.
func ParseProxies(list []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range list {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			var addr netip.Addr
			if addr, err = netip.ParseAddr(text); err == nil {
				prefix = netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen())
			}
		}
		switch {
		case err != nil, strings.Contains(text, "%"), prefix.Addr().Is4In6():
			return nil, fault.New(fault.Refuse, fault.Input, "give an address as 192.0.2.7, or a network as 192.0.2.0/28", "trusted proxy %q is neither an address nor a network", text)
		case prefix.Bits() == 0:
			return nil, fault.New(fault.Refuse, fault.Input, "list the proxies' own addresses", "%s as a trusted proxy would let everyone be any node", text)
		}
		out = append(out, prefix.Masked())
	}
	return out, nil
}

// maxCertificate bounds the header with a certificate, in bytes.
const maxCertificate = 16 << 10

// certificate returns the client's certificate, with what leads from it to an authority; nil where the client has shown none.
func (f *front) certificate(r *http.Request) ([]*x509.Certificate, *refusal) {
	for _, h := range Headers() {
		if h != f.Header && len(r.Header.Values(string(h))) > 0 {
			return nil, refuse(http.StatusBadRequest, nodeapi.CodeValidation, "the proxy passes on %s, and certificates come in %s here: it must drop what clients send", h, f.Header)
		}
	}
	values := r.Header.Values(string(f.Header))
	if len(values) > 1 {
		return nil, refuse(http.StatusBadRequest, nodeapi.CodeValidation, "%s more than once", f.Header)
	}
	if len(values) == 0 || values[0] == "" {
		return nil, nil
	}
	cert, err := f.Header.parse(values[0])
	if err != nil {
		return nil, refuse(http.StatusBadRequest, nodeapi.CodeValidation, "%s holds no certificate: %v", f.Header, err)
	}
	chains, err := cert.Verify(x509.VerifyOptions{Roots: f.Authorities(), CurrentTime: f.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		// Where the platform ends TLS, the handshake ends with such a certificate, upon which a node asks to renew it. So it does by this code.
		return nil, refuse(http.StatusUnauthorized, nodeapi.CodeCertificateExpired,
			"this certificate is outside its validity, or of no authority that this platform trusts: renew it, or enroll again with a new token")
	}
	return chains[0], nil
}

// parse reads a header's value: one certificate, and nothing else.
func (h Header) parse(value string) (*x509.Certificate, error) {
	if len(value) > maxCertificate {
		return nil, fmt.Errorf("more than %d bytes", maxCertificate)
	}
	if h == HeaderRFC9440 {
		inner, begun := strings.CutPrefix(value, ":")
		inner, ended := strings.CutSuffix(inner, ":")
		if !begun || !ended {
			return nil, errors.New("want base64 between colons (RFC 9440)")
		}
		der, err := base64.StdEncoding.Strict().DecodeString(inner)
		if err != nil {
			return nil, err
		}
		return x509.ParseCertificate(der)
	}
	// In a path's encoding + is itself; nginx leaves it so, as base64 has it.
	text, err := url.PathUnescape(value)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" || strings.TrimSpace(string(rest)) != "" {
		return nil, errors.New("want one certificate as PEM in URL encoding")
	}
	return x509.ParseCertificate(block.Bytes)
}

// client returns the client's address: of X-Forwarded-For the last that isn't a trusted proxy's own, as each proxy appends whom it
// heard. What can't be read ends the search at the proxy that said it.
func (f *front) client(header http.Header, peer netip.Addr) netip.Addr {
	list := strings.Split(strings.Join(header.Values("X-Forwarded-For"), ","), ",")
	client := peer
	for i := len(list) - 1; i >= 0; i-- {
		addr, err := netip.ParseAddr(strings.TrimSpace(list[i]))
		if err != nil {
			break
		}
		if client = addr.Unmap().WithZone(""); !f.trusts(client) {
			break
		}
	}
	return client
}
