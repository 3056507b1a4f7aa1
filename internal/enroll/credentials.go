package enroll

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/secret"
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
	// LocalClock says that certificates are judged by the machine's clock: the node was told that its platform
	// signs no time.
	LocalClock bool

	key      nodeKey
	caPEM    string      // CAs as they came
	proxy    secret.Text // a URL, which may hold a password
	said     *verdict
	origin   origin
	previous *Credentials // the pair before, until this one has been used; without a previous of its own
	material *nodehttp.Material
}

// origin says how a pair came to be where it is in the file.
type origin string

const (
	rotated origin = "rotated" // replaced by a rotation
	renewed origin = "renewed" // replaced by a renewal
	refused origin = "refused" // the platform didn't take it, and the pair before came back
)

// verdict is what the platform said of a certificate when it said no.
type verdict struct {
	Code nodeapi.Code `json:"code"`
	At   time.Time    `json:"at"`
}

// Material returns what a connection to the platform needs: each time the same.
func (c *Credentials) Material() (*nodehttp.Material, error) { return c.material, nil }

// Proxy returns the proxy that the platform is reached through, or nil.
func (c *Credentials) Proxy() *url.URL {
	u, err := nodehttp.ParseProxy(c.proxy.Reveal())
	if err != nil {
		return nil // it was checked when it was read
	}
	return u
}

// KeyKind says where the key lives: FileKey or TPMKey.
func (c *Credentials) KeyKind() KeyKind {
	if c.key.inside {
		return TPMKey
	}
	return FileKey
}

// Bootstrap returns what the node knows to enroll again where it is enrolled: all but a token.
func (c *Credentials) Bootstrap() Bootstrap {
	return Bootstrap{PlatformURL: c.PlatformURL, CAPEM: []byte(c.caPEM), InstanceID: c.InstanceID, Proxy: c.proxy, LocalClock: c.LocalClock}
}

// CABundleSHA256 returns the SHA-256 of the CA bundle that the node trusts, as heartbeats tell it.
func (c *Credentials) CABundleSHA256() string { return bundleSum(c.caPEM) }

func bundleSum(bundle string) string {
	sum := sha256.Sum256([]byte(bundle))
	return hex.EncodeToString(sum[:])
}

// Serial returns the certificate's serial number in upper-case hexadecimal digits, as the platform shows it.
func (c *Credentials) Serial() string { return fmt.Sprintf("%X", c.Leaf.SerialNumber) }

// String names the credentials without showing anything secret.
func (c *Credentials) String() string {
	return fmt.Sprintf("certificate %s of instance %s, until %s", c.Serial(), c.InstanceID, c.Leaf.NotAfter.UTC().Format(time.RFC3339))
}

// GoString returns what String returns.
func (c *Credentials) GoString() string { return c.String() }

// LogValue gives a logger what identifies the credentials.
func (c *Credentials) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("instance_id", c.InstanceID), slog.String("platform_url", c.PlatformURL),
		slog.String("serial", c.Serial()), slog.Time("not_after", c.Leaf.NotAfter),
	)
}

// with returns a copy that alter has changed, and whose material is made anew.
func (c *Credentials) with(alter func(*Credentials)) *Credentials {
	n := *c
	alter(&n)
	n.connect()
	return &n
}

// trusting returns c with other CAs.
func (c *Credentials) trusting(cas []*x509.Certificate, bundle string) *Credentials {
	return c.with(func(n *Credentials) {
		n.CAs, n.caPEM = cas, bundle
		if n.previous != nil {
			n.previous = n.previous.trusting(cas, bundle)
		}
	})
}

// stranger returns what a connection to the platform needs that shows no certificate of the node: each time a new one.
func (c *Credentials) stranger() *nodehttp.Material {
	return &nodehttp.Material{PlatformURL: c.PlatformURL, CAs: c.CAs, Proxy: c.Proxy()}
}

// connect makes the material of a complete pair.
func (c *Credentials) connect() {
	c.material = c.stranger()
	c.material.Certificate = &tls.Certificate{PrivateKey: c.key.Signer, Leaf: c.Leaf}
	for _, cert := range append([]*x509.Certificate{c.Leaf}, c.Intermediates...) {
		c.material.Certificate.Certificate = append(c.material.Certificate.Certificate, cert.Raw)
	}
}

// same reports whether connections of both are alike, so that those of one may go on.
func (c *Credentials) same(o *Credentials) bool {
	return c.Leaf.Equal(o.Leaf) && c.PlatformURL == o.PlatformURL && c.caPEM == o.caPEM && c.proxy.Equal(o.proxy)
}

// saidCode returns the code of the platform's last word, "" for none.
func (c *Credentials) saidCode() nodeapi.Code {
	if c.said == nil {
		return ""
	}
	return c.said.Code
}

// succeed returns next with c as its previous pair.
func (c *Credentials) succeed(next *Credentials, how origin) *Credentials {
	old := *c
	old.previous, old.origin = nil, how
	n := *next
	n.previous = &old
	return &n
}
