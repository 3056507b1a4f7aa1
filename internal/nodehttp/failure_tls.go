package nodehttp

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// tls classifies what a TLS handshake, or the peer's certificate, may be refused for; nil means
// that it was something else.
func (f *failure) tls(err error) error {
	if e, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		issuer := "unknown"
		if e.Cert != nil {
			issuer = clean(e.Cert.Issuer.String(), 80)
		}
		return f.new(fault.Refuse, hintCA, "the server's certificate (issuer %s) isn't signed by the CA that this node trusts (%s)",
			issuer, clean(f.conn.material.CAs[0].Subject.String(), 80))
	}
	if errors.Is(err, errNeverValid) {
		return f.new(fault.Refuse, "renew the platform's certificate", "%w", errNeverValid)
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return f.invalid(e)
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		names := append([]string{}, e.Certificate.DNSNames...)
		for _, ip := range e.Certificate.IPAddresses {
			names = append(names, ip.String())
		}
		if len(names) == 0 {
			names = []string{"no name at all"}
		}
		return f.new(fault.Refuse, "use one of the certificate's names in the platform URL, or give the platform a certificate for this name",
			"the server's certificate is for %s, not for %s", clean(strings.Join(names, ", "), 120), clean(e.Host, 100))
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return f.new(fault.Refuse, hintCA, "the server's certificate is refused: %s", clean(e.Err.Error(), 160))
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		return f.new(fault.Refuse, "check the port in the platform URL", "the server there doesn't speak TLS")
	}
	if strings.Contains(err.Error(), "protocol version") {
		return f.new(fault.Refuse, "let the platform, or the proxy before it, speak TLS 1.3", "the server there doesn't speak TLS 1.3")
	}
	// crypto/tls marks a peer's alert only by the operation's name.
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "remote error" {
		if strings.Contains(e.Err.Error(), "certificate") {
			return f.new(fault.Refuse, hintOwnCert, "%w: %w", ErrOwnCertificate, e.Err)
		}
		return f.new(fault.Refuse, hintNotPlatform, "the server ended the TLS handshake: %w", e.Err)
	}
	return nil
}

// invalid tells a wrong clock from an expired certificate as far as one machine can: it names both
// times. The clock, or the platform's certificate, may be mended with nothing changed here, hence Retry.
func (f *failure) invalid(e x509.CertificateInvalidError) error {
	now := f.conn.options.Now()
	stamp := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	switch {
	case e.Reason == x509.Expired && e.Cert != nil && now.Before(e.Cert.NotBefore):
		return f.new(fault.Retry, "set this machine's clock; if it is right, the platform's is ahead", "%w",
			validity(fmt.Sprintf("this machine's clock says %s, before the server's certificate begins (%s)", stamp(now), stamp(e.Cert.NotBefore))))
	case e.Reason == x509.Expired && e.Cert != nil:
		return f.new(fault.Retry, "check this machine's clock; if it is right, renew the platform's certificate", "%w",
			validity(fmt.Sprintf("the server's certificate (%s) ended at %s, and this machine's clock says %s",
				clean(e.Cert.Subject.String(), 80), stamp(e.Cert.NotAfter), stamp(now))))
	}
	return f.new(fault.Refuse, hintCA, "the server's certificate is refused: %s", clean(e.Error(), 160))
}
