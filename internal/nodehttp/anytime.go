package nodehttp

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"
)

// maxPresented bounds the certificates that a server may present: its own, and what leads to a CA.
const maxPresented = 16

// errNeverValid says that no instant lies within the validity of all certificates of a chain.
var errNeverValid = errors.New("the certificates of the server's chain were never valid at the same time")

// Verifies reports whether a server's presented chain, its own certificate first, leads to one of cas under
// the name host (a DNS name or an IP address) at the time now; nil is yes. It makes no connection: it tells
// whether a server that is trusted already would be under other CAs too.
func Verifies(chain []*x509.Certificate, host string, cas []*x509.Certificate, now time.Time) error {
	if len(chain) == 0 || len(chain) > maxPresented {
		return fmt.Errorf("the server presented %d certificates, 1 to %d are expected", len(chain), maxPresented)
	}
	// Verify takes "" for any name.
	if err := chain[0].VerifyHostname(host); err != nil {
		return err
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, ca := range cas {
		roots.AddCert(ca)
	}
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: now})
	return err
}

// verifiesEver is Verifies at any instant whatever. A chain whose certificates are ever valid together is so
// when the last of them begins.
func verifiesEver(chain []*x509.Certificate, host string, cas []*x509.Certificate) error {
	result := errNeverValid
	tried := make(map[time.Time]bool)
	for _, c := range slices.Concat(chain, cas) {
		if tried[c.NotBefore] {
			continue
		}
		tried[c.NotBefore] = true
		err := Verifies(chain, host, cas, c.NotBefore)
		if err == nil {
			return nil
		}
		if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok && e.Reason == x509.Expired {
			err = errNeverValid
		}
		if errors.Is(result, errNeverValid) {
			result = err
		}
	}
	return result
}

// anyTime makes cfg judge the peer by verifiesEver, and by nothing less.
func (m *Material) anyTime(cfg *tls.Config, host string) {
	// What crypto/tls would check, VerifyConnection does, but for the time.
	cfg.InsecureSkipVerify = true //nolint:gosec // see VerifyConnection
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		if err := verifiesEver(state.PeerCertificates, host, m.CAs); err != nil {
			return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}
		}
		return nil
	}
}

// hostOf returns the host of a URL that ParsePlatformURL returned.
func hostOf(base string) string {
	u, err := url.Parse(base)
	if err != nil {
		return "" // no certificate is for it
	}
	return u.Hostname()
}
