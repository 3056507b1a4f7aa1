package signing

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/crypto/nacl/secretbox"
	"golang.org/x/crypto/scrypt"

	"github.com/powernode/powernode-agent/internal/fault"
)

// KeyFileMax is the largest private key file that OpenKey reads, in bytes.
const KeyFileMax = 64 << 10

// The PEM types of a sealed private key: what cosign writes since 2.0, and what it wrote before.
const (
	pemSealed    = "ENCRYPTED SIGSTORE PRIVATE KEY"
	pemSealedOld = "ENCRYPTED COSIGN PRIVATE KEY"
)

// The sizes and names within a sealed key; the work factor is cosign's (64 MiB of memory).
const (
	kdfName    = "scrypt"
	kdfN       = 1 << 16
	kdfR       = 8
	kdfP       = 1
	cipherName = "nacl/secretbox"
	saltSize   = 32
	nonceSize  = 24
)

// sealedKey is the JSON document inside the PEM block: the PKCS #8 encoding of the key in a NaCl
// secretbox whose key comes from the password by scrypt. The format is that of the Update
// Framework's Go library, which cosign took over.
type sealedKey struct {
	KDF struct {
		Name   string    `json:"name"`
		Params kdfParams `json:"params"`
		Salt   []byte    `json:"salt"`
	} `json:"kdf"`
	Cipher struct {
		Name  string `json:"name"`
		Nonce []byte `json:"nonce"`
	} `json:"cipher"`
	Ciphertext []byte `json:"ciphertext"`
}

type kdfParams struct {
	N int `json:"N"`
	R int `json:"r"`
	P int `json:"p"`
}

// Seal returns the private key as cosign stores it (a cosign.key), encrypted under password.
func (k *Key) Seal(password []byte) ([]byte, error) {
	plain, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		return nil, fmt.Errorf("encode the private key: %w", err)
	}
	var doc sealedKey
	doc.KDF.Name, doc.KDF.Params = kdfName, kdfParams{N: kdfN, R: kdfR, P: kdfP}
	doc.KDF.Salt = make([]byte, saltSize)
	doc.Cipher.Name = cipherName
	doc.Cipher.Nonce = make([]byte, nonceSize)
	// crypto/rand.Read never returns an error: it ends the program instead.
	_, _ = rand.Read(doc.KDF.Salt)
	_, _ = rand.Read(doc.Cipher.Nonce)
	key, err := derive(password, doc.KDF.Salt, doc.KDF.Params)
	if err != nil {
		return nil, err
	}
	doc.Ciphertext = secretbox.Seal(nil, plain, (*[nonceSize]byte)(doc.Cipher.Nonce), key)
	text, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("encode the private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemSealed, Bytes: text}), nil
}

// OpenKey reads a private key file that Seal or cosign wrote. A wrong password, a damaged file and
// a key of another kind than P-256 are each a fault.Refuse in area Input.
func OpenKey(file, password []byte) (*Key, error) {
	doc, err := parseSealed(file)
	if err != nil {
		return nil, err
	}
	key, err := derive(password, doc.KDF.Salt, doc.KDF.Params)
	if err != nil {
		return nil, err
	}
	plain, ok := secretbox.Open(nil, doc.Ciphertext, (*[nonceSize]byte)(doc.Cipher.Nonce), key)
	if !ok {
		return nil, fault.New(fault.Refuse, fault.Input, "give the password that the key was made with",
			"open the signing key: the password is wrong or the file is damaged")
	}
	private, err := x509.ParsePKCS8PrivateKey(plain)
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Input, "make a P-256 key with: powernode key generate",
			"open the signing key: %w", err)
	}
	return NewKey(private)
}

// parseSealed reads the file up to the point where the password is needed.
func parseSealed(file []byte) (*sealedKey, error) {
	bad := func(hint string, cause error) error {
		return fault.New(fault.Refuse, fault.Input, hint, "read the signing key: %w", cause)
	}
	const remake = "give a private key made by powernode key generate or cosign generate-key-pair"
	if len(file) > KeyFileMax {
		return nil, bad(remake, fmt.Errorf("the file is larger than %d bytes", KeyFileMax))
	}
	block, rest := pem.Decode(file)
	switch {
	case block == nil:
		return nil, bad(remake, errors.New("it holds no PEM block"))
	case block.Type == "PUBLIC KEY":
		return nil, bad("give the private key; this is the public one", errors.New("it holds a public key"))
	case block.Type != pemSealed && block.Type != pemSealedOld:
		return nil, bad("import it first with: cosign import-key-pair", fmt.Errorf("it holds a PEM block of type %.60q", block.Type))
	case len(bytes.TrimSpace(rest)) != 0:
		return nil, bad(remake, errors.New("something follows its PEM block"))
	}
	var doc sealedKey
	if err := json.Unmarshal(block.Bytes, &doc); err != nil {
		return nil, bad(remake, err)
	}
	p := doc.KDF.Params
	switch {
	case doc.KDF.Name != kdfName || doc.Cipher.Name != cipherName:
		return nil, bad(remake, fmt.Errorf("it is sealed with %.40q and %.40q, which isn't known", doc.KDF.Name, doc.Cipher.Name))
	// The three work factors that cosign's library has used. Others cost memory that a file
	// from elsewhere must not choose, or are too weak.
	case p.N != 1<<15 && p.N != kdfN && p.N != 1<<17, p.R != kdfR, p.P != kdfP:
		return nil, bad(remake, fmt.Errorf("its scrypt parameters N=%d r=%d p=%d are not among those that cosign uses", p.N, p.R, p.P))
	case len(doc.KDF.Salt) < 16 || len(doc.KDF.Salt) > 64 || len(doc.Cipher.Nonce) != nonceSize:
		return nil, bad(remake, errors.New("its salt or nonce has the wrong length"))
	}
	return &doc, nil
}

// derive turns the password into the secretbox key.
func derive(password, salt []byte, p kdfParams) (*[32]byte, error) {
	key, err := scrypt.Key(password, salt, p.N, p.R, p.P, 32)
	if err != nil {
		return nil, fmt.Errorf("derive the key from the password: %w", err)
	}
	return (*[32]byte)(key), nil
}
