package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"time"
)

// authorityLife is how long an authority's certificate lives.
const authorityLife = 10 * 365 * 24 * time.Hour

// State is where an authority stands in its life.
type State string

// The states, in the order in which an authority goes through them.
const (
	// Prepared is made and told to the nodes, and signs nothing yet.
	Prepared State = "prepared"
	// Active signs.
	Active State = "active"
	// Trusted signs no more, and what it signed is good.
	Trusted State = "trusted"
	// Retired has no key any more, and is in no bundle.
	Retired State = "retired"
)

// authority is one key with its certificate. It doesn't change once it is in a view.
type authority struct {
	// id is the beginning of the serial number, in hexadecimal digits; it stands in the name, too.
	id    string
	state State
	// unit is the file of key and certificate; "" of one that is retired, which has no key either.
	unit string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	// cross is the same name and key, signed by the authority that was active before; nil of the first
	// one, and where that one can't sign other authorities.
	cross *x509.Certificate
	since since
}

// since says when an authority came into its states.
type since struct {
	Prepared  time.Time `json:"prepared,omitzero"`
	Activated time.Time `json:"activated,omitzero"`
	Retired   time.Time `json:"retired,omitzero"`
}

func (a *authority) validAt(t time.Time) bool {
	return !t.Before(a.cert.NotBefore) && !t.After(a.cert.NotAfter)
}

// signed reports whether a's key signed cert, of a certificate that was verified or is on file.
func (a *authority) signed(cert *x509.Certificate) bool {
	return len(cert.AuthorityKeyId) > 0 && bytes.Equal(cert.AuthorityKeyId, a.cert.SubjectKeyId)
}

// canSignAuthorities is false of those that were made before authorities could roll: their path length of 0
// leaves no room for another one between them and a leaf.
func (a *authority) canSignAuthorities() bool { return !a.cert.MaxPathLenZero }

// newAuthority makes a key and a certificate.
func newAuthority(now time.Time) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	a := &authority{id: authorityID(serial), key: key}
	a.cert, err = sign(&x509.Certificate{
		SerialNumber: serial,
		// A part of the serial in the name tells two authorities apart in error messages.
		Subject:   pkix.Name{CommonName: "Powernode platform CA " + a.id},
		NotBefore: now.Add(-backdate),
		NotAfter:  now.Add(authorityLife),
	}, nil, key, key)
	return a, err
}

func authorityID(serial *big.Int) string {
	b := serial.Bytes()
	return hex.EncodeToString(b[:min(4, len(b))])
}

// crossSign returns a certificate of next's name and key by a.
func (a *authority) crossSign(next *authority, now time.Time) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	end := next.cert.NotAfter
	if a.cert.NotAfter.Before(end) {
		end = a.cert.NotAfter
	}
	return sign(&x509.Certificate{
		SerialNumber: serial,
		Subject:      next.cert.Subject,
		SubjectKeyId: next.cert.SubjectKeyId,
		NotBefore:    now.Add(-backdate),
		NotAfter:     end,
	}, a.cert, next.key, a.key)
}

// sign fills in what each authority's certificate has, and signs it: by itself, if there is no parent.
func sign(template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) (*x509.Certificate, error) {
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	template.BasicConstraintsValid = true
	// Without a path length: the next authorities are signed by this one.
	template.IsCA = true
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// encodeUnit returns the content of the file of key and certificate.
func (a *authority) encodeUnit() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), encode(a.cert)...), nil
}

// parseUnit reads what encodeUnit returns.
func parseUnit(data []byte) (*authority, error) {
	var a authority
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
			if a.key, ok = key.(*ecdsa.PrivateKey); !ok {
				return nil, errors.New("the key isn't an ECDSA key")
			}
		case "CERTIFICATE":
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, err
			}
			a.cert = cert
		}
	}
	switch {
	case a.key == nil || a.cert == nil:
		return nil, errors.New("want a private key and a certificate")
	case !a.key.PublicKey.Equal(a.cert.PublicKey):
		return nil, errors.New("key and certificate don't belong together")
	case !a.cert.IsCA:
		return nil, errors.New("the certificate isn't an authority's")
	}
	a.id = authorityID(a.cert.SerialNumber)
	return &a, nil
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
