package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"
)

// NodeLife is how long a node's certificate lives, where nothing else is asked for.
const NodeLife = 90 * 24 * time.Hour

// MaxRequest bounds a certificate request in bytes.
const MaxRequest = 16 << 10

// Request is what the authority takes from a certificate request.
type Request struct {
	Key crypto.PublicKey
	// KeyHash is the SHA-256 of the key's SubjectPublicKeyInfo: the same key, the same hash.
	KeyHash [32]byte
}

// Leaf is an issued certificate.
type Leaf struct {
	PEM []byte
	// Serial is the serial number in upper-case hexadecimal digits.
	Serial string
	// Fingerprint is the SHA-256 of the certificate's DER bytes.
	Fingerprint [32]byte
	NotBefore   time.Time
	NotAfter    time.Time
}

// ParseRequest reads a PEM-encoded PKCS#10 request (RFC 2986), checks that its maker holds the
// private key, and accepts Ed25519 and ECDSA P-256. Subject, names and extensions are ignored.
func ParseRequest(text []byte) (Request, error) {
	if len(text) > MaxRequest {
		return Request{}, fmt.Errorf("longer than %d bytes", MaxRequest)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return Request{}, errors.New("want one PEM block CERTIFICATE REQUEST")
	}
	if strings.TrimSpace(string(rest)) != "" {
		return Request{}, errors.New("something follows the PEM block")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return Request{}, err
	}
	// The kind of key comes before the signature: checking one by a huge RSA key costs time.
	switch key := csr.PublicKey.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() {
			return Request{}, fmt.Errorf("an ECDSA key on %s: want P-256 or Ed25519", key.Curve.Params().Name)
		}
	default:
		return Request{}, fmt.Errorf("a key of algorithm %s: want Ed25519 or ECDSA P-256", csr.PublicKeyAlgorithm)
	}
	if err := csr.CheckSignature(); err != nil {
		return Request{}, fmt.Errorf("the request isn't signed by its own key: %w", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(csr.PublicKey)
	if err != nil {
		return Request{}, err
	}
	return Request{Key: csr.PublicKey, KeyHash: sha256.Sum256(spki)}, nil
}

// IssueNode issues a client certificate for the node's key, with the node's ID as common name. It lives for
// life, 0 meaning NodeLife, and no longer than the authority.
func (c *CA) IssueNode(nodeID string, req Request, life time.Duration) (Leaf, error) {
	if life == 0 {
		life = NodeLife
	}
	return c.view.Load().active.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: nodeID},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, req.Key, life, c.now())
}

// issue fills in what every leaf has and signs it.
func (a *authority) issue(template *x509.Certificate, key crypto.PublicKey, life time.Duration, now time.Time) (Leaf, error) {
	serial, err := newSerial()
	if err != nil {
		return Leaf{}, err
	}
	template.SerialNumber = serial
	template.NotBefore = now.Add(-min(backdate, life/12))
	template.NotAfter = now.Add(life)
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key, a.key)
	if err != nil {
		return Leaf{}, fmt.Errorf("sign a certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return Leaf{}, fmt.Errorf("read back a signed certificate: %w", err)
	}
	return Leaf{
		PEM:         pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Serial:      Serial(leaf),
		Fingerprint: sha256.Sum256(der),
		NotBefore:   leaf.NotBefore,
		NotAfter:    leaf.NotAfter,
	}, nil
}

// Serial returns a certificate's serial number in upper-case hexadecimal digits.
func Serial(cert *x509.Certificate) string { return fmt.Sprintf("%X", cert.SerialNumber.Bytes()) }
