package signature

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	sigstore "github.com/sigstore/sigstore/pkg/signature"
)

// parsePublicKey reads one PEM block of type PUBLIC KEY (PKIX). The algorithm follows from the
// key, never from a signature: ECDSA P-256 with SHA-256, P-384 with SHA-384, RSA of 2048, 3072 or
// 4096 bits with PKCS #1 v1.5 and SHA-256, Ed25519.
func parsePublicKey(text []byte) (key, error) {
	block, rest := pem.Decode(text)
	switch {
	case len(text) > keyFileMax:
		return key{}, fmt.Errorf("it is larger than %d bytes", keyFileMax)
	case block == nil:
		return key{}, errors.New("it holds no PEM block; a public key begins with -----BEGIN PUBLIC KEY-----")
	case strings.Contains(block.Type, "PRIVATE KEY"):
		return key{}, errors.New("it holds a private key; put the public one there, and keep this one secret")
	case block.Type != "PUBLIC KEY":
		return key{}, fmt.Errorf("it holds a PEM block of type %.60q, not PUBLIC KEY", block.Type)
	case len(bytes.TrimSpace(rest)) != 0:
		return key{}, errors.New("something follows its PEM block; write one key each")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return key{}, fmt.Errorf("its public key doesn't parse: %w", err)
	}
	sum := sha256.Sum256(block.Bytes)
	k := key{id: base64.StdEncoding.EncodeToString(sum[:])}
	supported := false
	switch pub := public.(type) {
	case *ecdsa.PublicKey:
		supported = pub.Curve == elliptic.P256() || pub.Curve == elliptic.P384()
	case *rsa.PublicKey:
		supported = pub.Size() >= 256
	case ed25519.PublicKey:
		supported, k.buffers = true, true // it hashes the message twice
	}
	if !supported {
		return key{}, errors.New("its kind of key isn't supported; use ECDSA P-256 (or P-384, RSA of at least 2048 bits, Ed25519)")
	}
	if k.verifier, err = sigstore.LoadDefaultVerifier(public); err != nil {
		return key{}, fmt.Errorf("its kind of key isn't supported: %w", err)
	}
	return k, nil
}

// streams reports whether the library verifies with a certificate's key without holding the
// message in memory: for other curves it tries two hashes one after the other.
func streams(public any) bool {
	switch pub := public.(type) {
	case *ecdsa.PublicKey:
		return pub.Curve == elliptic.P256()
	case *rsa.PublicKey:
		return true
	default:
		return false
	}
}
