// Package ca is the platform's certificate authority: an ECDSA P-256 key that signs the nodes' client
// certificates, the platform's own server certificate and the time, and the way from one such key to the
// next.
//
// It promises that a key and its certificate are one file that is replaced as a whole; that one record
// says which authority is in which state, so that a change is there or isn't, whenever the power goes;
// that nothing is removed before what replaces it was read back and tried; that whoever trusts an older
// authority is led to the present one as long as the older one's own validity lasts; that a node's
// certificate can't serve as a server's or sign others; and that what goes into a certificate comes from
// the platform: of a request it takes the public key and nothing else. It trusts its directory, which
// holds the keys, and the clock that it is given.
package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
)

// backdate is how far a certificate's validity begins before its making, for nodes whose clocks are a
// little behind.
const backdate = 5 * time.Minute

// CA is an open authority with its predecessors and its successor. It may be used by several goroutines at
// once: each call sees the authorities as they were at one moment.
type CA struct {
	dir  *durable.Dir
	now  func() time.Time
	view atomic.Pointer[view]
	// changing is held by who changes the directory and view.
	changing sync.Mutex
}

// Open opens the authority in dir, and makes a new one if there is none. An authority that is damaged or
// expired is an error, never a reason to make another: every node trusts this one. dir must stay open as
// long as the CA is used.
func Open(dir *durable.Dir, now func() time.Time) (*CA, error) {
	c := &CA{dir: dir, now: now}
	list, err := readAuthorities(dir, now())
	if err != nil {
		return nil, fmt.Errorf("open the certificate authority: %w", err)
	}
	v, err := newView(list)
	if err != nil {
		return nil, broken(recordName, err)
	}
	if t := now(); !v.active.validAt(t) {
		return nil, fault.New(fault.Refuse, fault.General, "check this machine's clock",
			"the certificate authority is valid from %s to %s, and it is %s",
			v.active.cert.NotBefore.Format(time.RFC3339), v.active.cert.NotAfter.Format(time.RFC3339), t.UTC().Format(time.RFC3339))
	}
	c.view.Store(v)
	return c, c.tidy()
}

// PEM returns the certificate of the authority that signs nodes' certificates now, and after it the
// cross-certificates that lead to it from older ones.
func (c *CA) PEM() []byte {
	v := c.view.Load()
	return encode(v.way(v.active, c.now())...)
}

// ChainOf returns the same for the authority that signed a certificate, PEM, which may be an older one; or
// PEM where the signer is unknown.
func (c *CA) ChainOf(certificate string) []byte {
	v := c.view.Load()
	if a := v.issuer(certificate); a != nil {
		return encode(v.way(a, c.now())...)
	}
	return c.PEM()
}

// Bundle returns the authorities that nodes and operators shall trust, as PEM, the oldest first.
func (c *CA) Bundle() []byte { return bytes.Clone(c.view.Load().bundle) }

// BundleSHA256 returns the SHA-256 of Bundle in lower-case hexadecimal digits.
func (c *CA) BundleSHA256() string { return c.view.Load().bundleSHA256 }

// Sign signs a message by the authority's key: ECDSA over SHA-256, ASN.1. The message must be one that no
// X.509 structure begins like. signer is the authority's certificate, then those that lead to it from older
// ones, as PEM.
func (c *CA) Sign(message []byte) (signature, signer []byte, err error) {
	v, now := c.view.Load(), c.now()
	by := v.presenter(now)
	sum := sha256.Sum256(message)
	signature, err = ecdsa.SignASN1(rand.Reader, by.key, sum[:])
	return signature, encode(v.way(by, now)...), err
}

// Pool returns a pool of the authorities that nodes and operators shall trust.
func (c *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, a := range c.view.Load().trusted() {
		pool.AddCert(a.cert)
	}
	return pool
}

// ClientPool returns a pool of every authority that ever signed a node's certificate. One that is retired
// is among them so that the holder of its certificate can be told what to do: whether a certificate is
// still good is on file, and not for the handshake to say.
func (c *CA) ClientPool() *x509.CertPool { return c.view.Load().clients }

// NotAfter returns the end of the present authority's life.
func (c *CA) NotAfter() time.Time { return c.view.Load().active.cert.NotAfter }

// Leads reports whether who trusts the authority of that ID only is led to the active one.
func (c *CA) Leads(id string) bool {
	v := c.view.Load()
	for _, a := range append(v.older(v.active, c.now()), v.active) {
		if a.id == id {
			return true
		}
	}
	return false
}

// Current reports whether the present authority signed cert, which must have been verified.
func (c *CA) Current(cert *x509.Certificate) bool { return c.view.Load().active.signed(cert) }

// Vouches reports whether an authority that isn't retired signed cert as a node's.
func (c *CA) Vouches(cert *x509.Certificate) bool {
	if cert.IsCA || !slices.Equal(cert.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
		return false
	}
	for _, a := range c.view.Load().trusted() {
		if a.state != Prepared && a.signed(cert) && cert.CheckSignatureFrom(a.cert) == nil {
			return true
		}
	}
	return false
}

// Issuer returns the ID of the authority that signed a certificate, PEM; "" where it is unknown.
func (c *CA) Issuer(certificate string) string {
	if a := c.view.Load().issuer(certificate); a != nil {
		return a.id
	}
	return ""
}

func encode(certs ...*x509.Certificate) []byte {
	var text []byte
	for _, cert := range certs {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	return text
}
