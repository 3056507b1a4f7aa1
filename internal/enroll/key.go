package enroll

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// KeyKind says where the node's private key lives.
type KeyKind string

// The kinds.
const (
	// FileKey is an Ed25519 key in the credentials' file. It is what "" means.
	FileKey KeyKind = "file"
	// TPMKey is an ECDSA P-256 key that never leaves the machine's TPM.
	TPMKey KeyKind = "tpm"
	// TPMKeyIfPresent is TPMKey where a TPM serves, and FileKey elsewhere.
	TPMKeyIfPresent KeyKind = "tpm-if-present"
)

// ParseKeyKind reads the name of a kind; "" is FileKey.
func ParseKeyKind(s string) (KeyKind, error) {
	switch k := KeyKind(s); k {
	case "":
		return FileKey, nil
	case FileKey, TPMKey, TPMKeyIfPresent:
		return k, nil
	default:
		return "", fault.New(fault.Refuse, fault.Input, "use file, tpm or tpm-if-present", "kind of key %.40q", s)
	}
}

// TPM makes and loads keys that live in a trusted platform module. TPMAt returns the real one.
type TPM interface {
	// Present reports whether there is a TPM to ask.
	Present() bool
	// Create makes a key that nobody else has, and returns it with the text by which Load finds it again.
	// The text is of no use without this very TPM.
	Create(ctx context.Context) (crypto.Signer, []byte, error)
	// Load reads such a text and may leave it to Check to ask the TPM.
	Load(text []byte) (crypto.Signer, error)
	// Check reports whether the TPM signs with a key that Load returned.
	Check(ctx context.Context, key crypto.Signer) error
}

// nodeKey is a private key with its form on the disk. The zero value is none.
type nodeKey struct {
	crypto.Signer
	text   string // PKCS#8 PEM, or what the TPM finds it by
	inside bool   // in the TPM
}

// String shows nothing of the key.
func (k nodeKey) String() string { return "a private key" }

// GoString returns what String returns.
func (k nodeKey) GoString() string { return k.String() }

// storedKey is a nodeKey in a file: one of the two is "".
type storedKey struct {
	KeyPEM string `json:"key_pem,omitempty"` // PKCS#8
	TPMKey string `json:"tpm_key,omitempty"` // of no use without the TPM
}

func (k nodeKey) stored() storedKey {
	if k.inside {
		return storedKey{TPMKey: k.text}
	}
	return storedKey{KeyPEM: k.text}
}

// errAway marks a key that is in a TPM which doesn't give it out now.
var errAway = errors.New("the node's key is in a TPM that doesn't sign with it")

// keyring makes the node's keys and reads them back.
type keyring struct{ tpm TPM }

// checkTime bounds how long a TPM may take to find a key.
const checkTime = 15 * time.Second

// read returns a stored key. An error that is errAway comes with the key, which may serve another time.
func (r keyring) read(s storedKey) (nodeKey, error) {
	if s.TPMKey == "" {
		key, err := parseKey([]byte(s.KeyPEM))
		return nodeKey{Signer: key, text: s.KeyPEM}, err
	}
	signer, err := r.tpm.Load([]byte(s.TPMKey))
	if err != nil {
		return nodeKey{}, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkTime)
	defer cancel()
	key := nodeKey{Signer: signer, text: s.TPMKey, inside: true}
	if err := r.tpm.Check(ctx, signer); err != nil {
		return key, fmt.Errorf("%w: %w", errAway, err)
	}
	return key, nil
}

// fits reports whether a key that is there already is what a kind asks for.
func (k KeyKind) fits(key nodeKey) bool {
	switch k {
	case TPMKey:
		return key.inside
	case TPMKeyIfPresent:
		return true
	case FileKey, "":
		return !key.inside
	default:
		return false
	}
}

// create makes a new key.
func (r keyring) create(ctx context.Context, kind KeyKind, log *slog.Logger) (nodeKey, error) {
	kind, err := ParseKeyKind(string(kind))
	if err != nil {
		return nodeKey{}, err
	}
	present := r.tpm.Present()
	if kind == TPMKey && !present {
		return nodeKey{}, fault.New(fault.Refuse, fault.Policy, "enable the TPM in the firmware, or have the trust policy say node_key: tpm-if-present",
			"the node's key is to live in a TPM, and this machine shows none")
	}
	if kind != FileKey && present {
		key, text, err := r.tpm.Create(ctx)
		if err == nil {
			return nodeKey{Signer: key, text: string(text), inside: true}, nil
		}
		if kind == TPMKey || ctx.Err() != nil {
			return nodeKey{}, fmt.Errorf("make the node's key in the TPM: %w", err)
		}
		// A node that can't be reached is worse than one whose key could be copied by its administrator.
		log.Warn("the TPM makes no key; the node's key is kept in a file", "error", err)
	}
	key, err := newKey()
	if err != nil {
		return nodeKey{}, fmt.Errorf("make the node's key: %w", err)
	}
	return fileKey(key)
}

// newKey makes a private key that can be kept in a file.
func newKey() (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return key, err
}

func fileKey(key ed25519.PrivateKey) (nodeKey, error) {
	text, err := encodeKey(key)
	return nodeKey{Signer: key, text: string(text)}, err
}

func encodeKey(key ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode the node's key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// parseKey reads an Ed25519 key in PKCS#8, PEM. Its errors show nothing of the text.
func parseKey(text []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("the key isn't a PKCS#8 PEM")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the key doesn't parse")
	}
	key, ok := k.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("the key isn't an Ed25519 key")
	}
	return key, nil
}
