package tpmkey

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Key is an ECDSA P-256 key whose private part is in a TPM. It is a crypto.Signer, and may be used by
// several goroutines at once; the TPM does one thing after the other.
type Key struct {
	path     string
	material material
	pem      []byte
	public   *ecdsa.PublicKey
	turn     chan struct{}
}

// Create makes a new key in the TPM at device ("" is the machine's first). It is kept nowhere but in
// what PEM returns. Errors are faults: ErrAbsent where there is no TPM, of kind Retry where another
// try may do.
func Create(ctx context.Context, device string) (*Key, error) {
	path := resolve(device)
	made, err := do(ctx, path, nil, create)
	if err != nil {
		return nil, explain("make a key", path, err)
	}
	public, err := parsePublic(made.public)
	if err != nil {
		return nil, explain("make a key", path, fmt.Errorf("what it made isn't what was asked for: %w", err))
	}
	return newKey(path, made, public)
}

// Load reads a key that PEM returned, for the TPM at device ("" is the machine's first). It doesn't
// ask the TPM, so that who only looks at a node's credentials doesn't need one; Check does. The error
// is a fault of kind Broken.
func Load(device string, text []byte) (*Key, error) {
	m, public, err := decode(text)
	if err != nil {
		return nil, broken("read the TPM's key: %w", err)
	}
	return newKey(resolve(device), m, public)
}

func newKey(path string, m material, public *ecdsa.PublicKey) (*Key, error) {
	text, err := m.encode()
	if err != nil {
		return nil, err
	}
	return &Key{path: path, material: m, pem: text, public: public, turn: make(chan struct{}, 1)}, nil
}

// PEM returns the key as a "TSS2 PRIVATE KEY": its public part, and its private part encrypted by the
// TPM. It isn't a secret to those who can't use the TPM.
func (k *Key) PEM() []byte { return append([]byte(nil), k.pem...) }

// Public returns the public key, an *ecdsa.PublicKey.
func (k *Key) Public() crypto.PublicKey { return k.public }

// Schemes are the signature schemes of TLS that the key can do, for tls.Certificate's
// SupportedSignatureAlgorithms.
func (k *Key) Schemes() []tls.SignatureScheme {
	return []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}
}

// String names the key's TPM.
func (k *Key) String() string { return "a key in the TPM " + k.path }

// Check has the TPM load the key. The error is ErrForeign where this TPM will never load it, and
// ErrAbsent where there is none.
func (k *Key) Check(ctx context.Context) error {
	_, err := do(ctx, k.path, k.turn, func(t transport.TPM) (struct{}, error) {
		return withKey(t, k.material, func(tpm2.NamedHandle) (struct{}, error) { return struct{}{}, nil })
	})
	return explain("load the node's key", k.path, err)
}

// Sign implements crypto.Signer: it returns the signature of a SHA-256 digest in ASN.1. The random
// source isn't used, as the TPM has its own. Errors are those of Check.
func (k *Key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts == nil || opts.HashFunc() != crypto.SHA256 || len(digest) != sha256.Size {
		return nil, broken("sign with a key in the TPM: %w", errors.New("it signs digests of SHA-256 only"))
	}
	const doing = "sign with the node's key"
	signed, err := do(context.Background(), k.path, k.turn, func(t transport.TPM) (signature, error) {
		return sign(t, k.material, digest)
	})
	if err != nil {
		return nil, explain(doing, k.path, err)
	}
	der, err := signed.encode()
	if err == nil && !ecdsa.VerifyASN1(k.public, digest, der) {
		err = errors.New("the signature that it made isn't one")
	}
	if err != nil {
		return nil, explain(doing, k.path, err)
	}
	return der, nil
}

// signature is an ECDSA signature, big endian.
type signature struct{ r, s []byte }

// encode returns it as the ECDSA-Sig-Value of RFC 3279, 2.2.3.
func (s signature) encode() ([]byte, error) {
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(s.r), new(big.Int).SetBytes(s.s)})
}
