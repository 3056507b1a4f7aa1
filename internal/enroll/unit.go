package enroll

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/secret"
)

// unit is the file of the credentials. Version grows with a change that an older agent would
// misread; fields that are missing were not there yet when the file was written.
type unit struct {
	Version     int       `json:"version"`
	InstanceID  string    `json:"instance_id"`
	PlatformURL string    `json:"platform_url"`
	EnrolledAt  time.Time `json:"enrolled_at"`
	pair
	CAPEM string `json:"ca_pem"`
	// Previous is the pair before this one, until this one has been used once.
	Previous *pair `json:"previous,omitempty"`
	// Clock is "local" where the platform signs no time.
	Clock string `json:"clock,omitempty"`
	// Proxy is a URL.
	Proxy string `json:"proxy,omitempty"`
}

// pair is a key and its certificate.
type pair struct {
	storedKey
	CertPEM       string   `json:"cert_pem"` // the leaf, then its intermediates
	CertificateID string   `json:"certificate_id,omitempty"`
	Said          *verdict `json:"said,omitempty"`
	// Reason says of a previous pair why it is that.
	Reason origin `json:"reason,omitempty"`
}

const (
	unitVersion = 1
	localClock  = "local"
)

// errHalf marks a file whose key and certificate don't make a pair.
var errHalf = errors.New("key and certificate don't make a pair")

// credentials reads u. An error that is errHalf means that there is no pair in it, one that is errAway that
// the key is out of reach; with the latter there are credentials all the same.
func (u unit) credentials(keys keyring) (*Credentials, error) {
	if u.Version != unitVersion {
		return nil, fmt.Errorf("its version is %d, and this agent reads %d", u.Version, unitVersion)
	}
	cas, err := nodehttp.ParseCAs([]byte(u.CAPEM))
	if err != nil && u.complete() {
		return nil, err
	}
	if _, err := nodehttp.ParsePlatformURL(u.PlatformURL); err != nil && u.complete() {
		return nil, err
	}
	if _, err := nodehttp.ParseProxy(u.Proxy); err != nil {
		return nil, err
	}
	base := Credentials{
		InstanceID: u.InstanceID, PlatformURL: u.PlatformURL, EnrolledAt: u.EnrolledAt, CAs: cas, caPEM: u.CAPEM,
		LocalClock: u.Clock == localClock, proxy: secret.New(u.Proxy),
	}
	c, err := u.pair.credentials(base, keys)
	if c == nil {
		return nil, err
	}
	if u.Previous != nil {
		// One that can't be read, or whose key is away, can't come back: the present one is what counts.
		if p, err := u.Previous.credentials(base, keys); err == nil {
			c.previous = p
		}
	}
	return c, err
}

// complete reports whether there is a key and a certificate.
func (p pair) complete() bool { return (p.KeyPEM != "" || p.TPMKey != "") && p.CertPEM != "" }

// credentials completes base by the pair.
func (p pair) credentials(base Credentials, keys keyring) (*Credentials, error) {
	if !p.complete() {
		return nil, fmt.Errorf("%w: one of them is missing", errHalf)
	}
	key, keyErr := keys.read(p.storedKey)
	if keyErr != nil && !errors.Is(keyErr, errAway) {
		return nil, keyErr
	}
	certs, err := parseCertificates([]byte(p.CertPEM))
	if err != nil {
		return nil, err
	}
	c := base
	if !ownKey(certs[0], key) {
		return nil, fmt.Errorf("%w: the certificate is for another key", errHalf)
	}
	if c.InstanceID == "" || certs[0].Subject.CommonName != c.InstanceID {
		return nil, fmt.Errorf("the certificate is %q's, the file says instance %.60q", certs[0].Subject.CommonName, c.InstanceID)
	}
	c.key, c.Leaf, c.Intermediates, c.CertificateID, c.said, c.origin = key, certs[0], certs[1:], p.CertificateID, p.Said, p.Reason
	c.connect()
	return &c, keyErr
}

// unit returns the file's content.
func (c *Credentials) unit() unit {
	u := unit{
		Version: unitVersion, InstanceID: c.InstanceID, PlatformURL: c.PlatformURL, EnrolledAt: c.EnrolledAt.UTC(),
		pair: c.asPair(), CAPEM: c.caPEM, Proxy: c.proxy.Reveal(),
	}
	u.Reason = ""
	if c.LocalClock {
		u.Clock = localClock
	}
	if c.previous != nil {
		p := c.previous.asPair()
		u.Previous = &p
	}
	return u
}

func (c *Credentials) asPair() pair {
	return pair{
		storedKey: c.key.stored(), CertPEM: encodeCertificates(append([]*x509.Certificate{c.Leaf}, c.Intermediates...)),
		CertificateID: c.CertificateID, Said: c.said, Reason: c.origin,
	}
}
