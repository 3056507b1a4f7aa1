package signing

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Key is a private signing key: ECDSA on P-256 with SHA-256, the one kind that every version of
// cosign makes and checks.
type Key struct {
	private *ecdsa.PrivateKey
	public  []byte // PKIX, DER
}

// GenerateKey makes a new key from the system's random numbers.
func GenerateKey() (*Key, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate a signing key: %w", err)
	}
	return NewKey(private)
}

// NewKey wraps a private key. Every kind but ECDSA on P-256 is a fault.Refuse in area Input.
func NewKey(private any) (*Key, error) {
	key, ok := private.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fault.New(fault.Refuse, fault.Input, "make a P-256 key with: powernode key generate",
			"the signing key is not an ECDSA key on P-256")
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("encode the public key: %w", err)
	}
	return &Key{private: key, public: public}, nil
}

// ID returns the key's identifier: the SHA-256 of its PKIX encoding in standard base64, as cosign
// writes it into a bundle's hint. It identifies; it proves nothing.
func (k *Key) ID() string {
	sum := sha256.Sum256(k.public)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// PublicPEM returns the public key as a PEM block of type PUBLIC KEY (PKIX): the content of a
// cosign.pub, and of a key in trust.yaml.
func (k *Key) PublicPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.public})
}

// String hides the key from formatted output; only its ID shows.
func (k *Key) String() string { return "signing key " + k.ID() }

// GoString is String, for %#v.
func (k *Key) GoString() string { return k.String() }

// sign returns the ASN.1 signature of message. A nil source of randomness makes it the
// deterministic one of RFC 6979.
func (k *Key) sign(message []byte) ([]byte, error) {
	sum := sha256.Sum256(message)
	return k.private.Sign(nil, sum[:], crypto.SHA256)
}
