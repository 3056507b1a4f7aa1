package enroll

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
)

// publicKey is what the standard library's public keys have in common.
type publicKey interface{ Equal(crypto.PublicKey) bool }

// ownKey reports whether cert is for key.
func ownKey(cert *x509.Certificate, key crypto.Signer) bool { return samePublic(cert.PublicKey, key) }

func samePublic(public any, key crypto.Signer) bool {
	pub, ok := public.(publicKey)
	return ok && pub.Equal(key.Public())
}

// certificateRequest returns a PKCS#10 request, as DER and as PEM. The platform chooses the
// certificate's subject itself; the one here is for who reads the request.
func certificateRequest(key crypto.Signer, subject string) (der []byte, text string, err error) {
	if subject == "" {
		subject = "node"
	}
	der, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: subject}}, key)
	if err != nil {
		return nil, "", fmt.Errorf("make the certificate request: %w", err)
	}
	return der, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}

// prove signs a message: Ed25519, or ECDSA over its SHA-256 (ASN.1).
func prove(key crypto.Signer, message []byte) ([]byte, error) {
	if _, ok := key.Public().(ed25519.PublicKey); ok {
		return key.Sign(rand.Reader, message, crypto.Hash(0))
	}
	sum := sha256.Sum256(message)
	return key.Sign(rand.Reader, sum[:], crypto.SHA256)
}
