package enroll

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// Credentials are a node's key, its certificate and what they are good for: one unit, in memory
// as on disk. They don't change; a renewed certificate makes new ones. Nothing prints the key.
type Credentials struct {
	// InstanceID is the node instance's ID and the certificate's common name.
	InstanceID string
	// PlatformURL is the platform that issued them.
	PlatformURL string
	// CertificateID is the platform's name for the certificate; may be "".
	CertificateID string
	// EnrolledAt is when they were received, by this machine's clock.
	EnrolledAt time.Time
	// Leaf is the certificate; Intermediates lead from it to one of CAs.
	Leaf          *x509.Certificate
	Intermediates []*x509.Certificate
	// CAs are the pinned trust anchors.
	CAs []*x509.Certificate

	key      ed25519.PrivateKey
	material *nodehttp.Material
}

// Material returns what a connection to the platform needs: each time the same.
func (c *Credentials) Material() (*nodehttp.Material, error) { return c.material, nil }

// String names the credentials without showing anything secret.
func (c *Credentials) String() string {
	return fmt.Sprintf("certificate %X of instance %s, until %s", c.Leaf.SerialNumber, c.InstanceID, c.Leaf.NotAfter.UTC().Format(time.RFC3339))
}

// GoString returns what String returns.
func (c *Credentials) GoString() string { return c.String() }

// LogValue gives a logger what identifies the credentials.
func (c *Credentials) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("instance_id", c.InstanceID), slog.String("platform_url", c.PlatformURL),
		slog.String("serial", fmt.Sprintf("%X", c.Leaf.SerialNumber)), slog.Time("not_after", c.Leaf.NotAfter),
	)
}

// unit is the file of the credentials. Version grows with a change that an older agent would
// misread.
type unit struct {
	Version       int       `json:"version"`
	InstanceID    string    `json:"instance_id"`
	PlatformURL   string    `json:"platform_url"`
	CertificateID string    `json:"certificate_id,omitempty"`
	EnrolledAt    time.Time `json:"enrolled_at"`
	KeyPEM        string    `json:"key_pem"`  // PKCS#8
	CertPEM       string    `json:"cert_pem"` // the leaf, then its intermediates
	CAPEM         string    `json:"ca_pem"`
}

const unitVersion = 1

// errHalf marks a unit whose key and certificate don't make a pair.
var errHalf = errors.New("key and certificate don't make a pair")

// credentials reads u. An error that is errHalf means that there is no pair in it.
func (u unit) credentials() (*Credentials, error) {
	if u.Version != unitVersion {
		return nil, fmt.Errorf("its version is %d, and this agent reads %d", u.Version, unitVersion)
	}
	if u.KeyPEM == "" || u.CertPEM == "" {
		return nil, fmt.Errorf("%w: one of them is missing", errHalf)
	}
	key, err := parseKey([]byte(u.KeyPEM))
	if err != nil {
		return nil, err
	}
	certs, err := parseCertificates([]byte(u.CertPEM))
	if err != nil {
		return nil, err
	}
	cas, err := nodehttp.ParseCAs([]byte(u.CAPEM))
	if err != nil {
		return nil, err
	}
	if _, err := nodehttp.ParsePlatformURL(u.PlatformURL); err != nil {
		return nil, err
	}
	if !ownKey(certs[0], key) {
		return nil, fmt.Errorf("%w: the certificate is for another key", errHalf)
	}
	if u.InstanceID == "" || certs[0].Subject.CommonName != u.InstanceID {
		return nil, fmt.Errorf("the certificate is %q's, the file says instance %.60q", certs[0].Subject.CommonName, u.InstanceID)
	}
	c := &Credentials{
		InstanceID: u.InstanceID, PlatformURL: u.PlatformURL, CertificateID: u.CertificateID, EnrolledAt: u.EnrolledAt,
		Leaf: certs[0], Intermediates: certs[1:], CAs: cas, key: key,
	}
	c.material = &nodehttp.Material{
		PlatformURL: c.PlatformURL, CAs: cas,
		Certificate: &tls.Certificate{PrivateKey: key, Leaf: c.Leaf},
	}
	for _, cert := range certs {
		c.material.Certificate.Certificate = append(c.material.Certificate.Certificate, cert.Raw)
	}
	return c, nil
}

// unit returns the file's content.
func (c *Credentials) unit() (unit, error) {
	keyPEM, err := encodeKey(c.key)
	if err != nil {
		return unit{}, err
	}
	return unit{
		Version: unitVersion, InstanceID: c.InstanceID, PlatformURL: c.PlatformURL, CertificateID: c.CertificateID,
		EnrolledAt: c.EnrolledAt.UTC(), KeyPEM: string(keyPEM),
		CertPEM: encodeCertificates(append([]*x509.Certificate{c.Leaf}, c.Intermediates...)), CAPEM: encodeCertificates(c.CAs),
	}, nil
}

// chains checks that leaf leads to one of roots as a TLS client's certificate. The chain is judged
// at the instant of leaf's validity that is nearest to now, because whether leaf itself is in
// force is another question, and the clock may be wrong.
func chains(leaf *x509.Certificate, intermediates, roots []*x509.Certificate, now time.Time) error {
	if now.After(leaf.NotAfter) {
		now = leaf.NotAfter
	}
	if now.Before(leaf.NotBefore) {
		now = leaf.NotBefore
	}
	o := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, c := range roots {
		o.Roots.AddCert(c)
	}
	for _, c := range intermediates {
		o.Intermediates.AddCert(c)
	}
	_, err := leaf.Verify(o)
	return err
}

// shareCA reports whether two bundles have a certificate in common.
func shareCA(a, b []*x509.Certificate) bool {
	for _, x := range a {
		for _, y := range b {
			if bytes.Equal(x.Raw, y.Raw) {
				return true
			}
		}
	}
	return false
}

const maxCertificates = 8

// parseCertificates reads one to eight certificates, the leaf first.
func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("the PEM holds a block of type %.40q among the certificates", block.Type)
		}
		if len(certs) == maxCertificates {
			return nil, fmt.Errorf("the PEM holds more than %d certificates", maxCertificates)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d doesn't parse: %w", len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("it isn't a PEM certificate")
	}
	return certs, nil
}

func encodeCertificates(certs []*x509.Certificate) string {
	var b bytes.Buffer
	for _, c := range certs {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.String()
}
