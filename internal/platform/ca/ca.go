// Package ca is the platform's certificate authority: one ECDSA P-256 key that signs the nodes'
// client certificates and the platform's own server certificate.
//
// It promises that a key and its certificate are one file that is replaced as a whole, that a
// node's certificate can't serve as a server's or sign others, and that what goes into a
// certificate comes from the platform: of a request it takes the public key and nothing else.
// It trusts its directory, which holds the key, and the clock that it is given.
package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
)

// The files in the authority's directory.
const (
	// unitName holds the key and the certificate, readable by the owner only.
	unitName = "authority.pem"
	// certName holds the certificate alone, for people and programs that need the trust anchor.
	certName = "ca.pem"
)

const (
	// authorityLife is how long the authority's certificate lives.
	authorityLife = 10 * 365 * 24 * time.Hour
	// backdate is how far a certificate's validity begins before its making, for nodes whose
	// clocks are a little behind.
	backdate = 5 * time.Minute
	// unitLimit bounds the file with key and certificate, in bytes.
	unitLimit = 64 << 10
)

// CA is an open authority. It may be used by several goroutines at once.
type CA struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
	now  func() time.Time
}

// Open opens the authority in dir, and makes a new one if there is none. An authority that is
// damaged or expired is an error, never a reason to make another: every node trusts this one.
func Open(dir *durable.Dir, now func() time.Time) (*CA, error) {
	data, err := readUnit(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if data, err = create(dir, now()); err != nil {
			return nil, fmt.Errorf("make the certificate authority: %w", err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read the certificate authority: %w", err)
	}
	c, err := parseUnit(data)
	if err != nil {
		return nil, fault.New(fault.Broken, fault.General, "restore "+unitName+" from a backup", "read the certificate authority in %s: %w", unitName, err)
	}
	if t := now(); t.After(c.cert.NotAfter) || t.Before(c.cert.NotBefore) {
		return nil, fault.New(fault.Refuse, fault.General, "check this machine's clock",
			"the certificate authority is valid from %s to %s, and it is %s",
			c.cert.NotBefore.Format(time.RFC3339), c.cert.NotAfter.Format(time.RFC3339), t.UTC().Format(time.RFC3339))
	}
	c.now = now
	// The public copy follows the unit, also after a crash between the two writes.
	if have, err := dir.ReadFile(certName, unitLimit); err != nil || !bytes.Equal(have, c.pem) {
		if err := dir.WriteFile(certName, c.pem, 0o644, "ca-certificate"); err != nil {
			return nil, fmt.Errorf("write the certificate authority's certificate: %w", err)
		}
	}
	return c, nil
}

// PEM returns the authority's certificate: the trust anchor of nodes and operators.
func (c *CA) PEM() []byte { return bytes.Clone(c.pem) }

// Bundle returns the authorities that nodes and operators shall trust, as PEM.
func (c *CA) Bundle() []byte { return bytes.Clone(c.pem) }

// BundleSHA256 returns the SHA-256 of Bundle in lower-case hexadecimal digits.
func (c *CA) BundleSHA256() string {
	sum := sha256.Sum256(c.pem)
	return hex.EncodeToString(sum[:])
}

// Sign signs a message by the authority's key: ECDSA over SHA-256, ASN.1. The message must be one that no
// X.509 structure begins like. signer is the authority's certificate, then those that lead to it from an
// older one, as PEM.
func (c *CA) Sign(message []byte) (signature, signer []byte, err error) {
	sum := sha256.Sum256(message)
	signature, err = ecdsa.SignASN1(rand.Reader, c.key, sum[:])
	return signature, bytes.Clone(c.pem), err
}

// Pool returns a pool that holds the authority's certificate alone.
func (c *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.cert)
	return pool
}

// NotAfter returns the end of the authority's life.
func (c *CA) NotAfter() time.Time { return c.cert.NotAfter }

func readUnit(dir *durable.Dir) ([]byte, error) {
	f, err := dir.Open(unitName)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fault.New(fault.Refuse, fault.General, "find out who could read it, then chmod 600",
			"%s: mode %04o lets others read the authority's key", unitName, info.Mode().Perm())
	}
	return dir.ReadFile(unitName, unitLimit)
}

// create makes a key and a certificate and writes them as one file.
func create(dir *durable.Dir, now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	// A part of the serial in the name tells two platforms' authorities apart in error messages.
	name := "Powernode platform CA " + hex.EncodeToString(serial.Bytes()[:4])
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	data := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	data = append(data, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	return data, dir.WriteFile(unitName, data, 0o600, "ca-authority")
}

func parseUnit(data []byte) (*CA, error) {
	var c CA
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		switch block.Type {
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, err
			}
			var ok bool
			if c.key, ok = key.(*ecdsa.PrivateKey); !ok {
				return nil, errors.New("the key isn't an ECDSA key")
			}
		case "CERTIFICATE":
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, err
			}
			c.cert, c.pem = cert, pem.EncodeToMemory(block)
		}
	}
	switch {
	case c.key == nil || c.cert == nil:
		return nil, errors.New("want a private key and a certificate")
	case !c.key.PublicKey.Equal(c.cert.PublicKey):
		return nil, errors.New("key and certificate don't belong together")
	case !c.cert.IsCA:
		return nil, errors.New("the certificate isn't an authority's")
	}
	return &c, nil
}

// newSerial returns 127 random bits, never so few that fewer than 16 bytes come out.
func newSerial() (*big.Int, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:]), nil
}
