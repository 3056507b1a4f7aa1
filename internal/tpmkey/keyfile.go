package tpmkey

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

const (
	// MaxPEM is the longest PEM that Load reads, in bytes; one that Create makes has about 500.
	MaxPEM = 4096

	pemType = "TSS2 PRIVATE KEY"
	// coordinateSize is that of a coordinate of a point on P-256, in bytes.
	coordinateSize = 32
)

// loadableKey is id-loadablekey: {joint-iso-itu-t(2) international-organizations(23) tcg(133) 10 1 3}.
var loadableKey = asn1.ObjectIdentifier{2, 23, 133, 10, 1, 3}

// keyFile is a TPMKey. Its further optional fields ([1] to [5]: policies, the wrapping of keys from
// elsewhere, a description, an RSA parent) are for keys that Create doesn't make.
type keyFile struct {
	Type asn1.ObjectIdentifier
	// EmptyAuth says that the key has no password.
	EmptyAuth bool `asn1:"optional,explicit,tag:0"`
	// Parent is the handle of the parent; a permanent one stands for a primary key of its seed.
	Parent  int64
	Public  []byte // TPM2B_PUBLIC
	Private []byte // TPM2B_PRIVATE
}

// material is a key as a TPM takes it: sized structures, each with its size before it.
type material struct{ public, private []byte }

// encode returns m as a PEM.
func (m material) encode() ([]byte, error) {
	der, err := m.der()
	if err != nil {
		return nil, fmt.Errorf("encode the TPM's key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), nil
}

func (m material) der() ([]byte, error) {
	return asn1.Marshal(keyFile{Type: loadableKey, EmptyAuth: true, Parent: int64(tpm2.TPMRHOwner), Public: m.public, Private: m.private})
}

// decode reads what encode returns, and nothing else.
func decode(text []byte) (material, *ecdsa.PublicKey, error) {
	if len(text) > MaxPEM {
		return material{}, nil, fmt.Errorf("it is longer than %d bytes", MaxPEM)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != pemType || len(block.Headers) > 0 || len(bytes.TrimSpace(rest)) > 0 {
		return material{}, nil, fmt.Errorf("it isn't one PEM block of type %s", pemType)
	}
	var f keyFile
	if rest, err := asn1.Unmarshal(block.Bytes, &f); err != nil || len(rest) > 0 {
		return material{}, nil, errors.New("its ASN.1 isn't that of a TPM's key")
	}
	m := material{public: f.Public, private: f.Private}
	// The one form that there is of it: what differs is a key that another program made for other
	// ends, with a password or for another parent.
	der, err := m.der()
	if err != nil || !bytes.Equal(der, block.Bytes) {
		return material{}, nil, errors.New("it isn't a loadable key without a password beneath the owner's storage root key")
	}
	if !sized(m.private) || len(m.private) == 2 {
		return material{}, nil, errors.New("its private area has another size than it says")
	}
	public, err := parsePublic(m.public)
	return m, public, err
}

// sized reports whether b is a sized structure: two bytes of size, and so many more.
func sized(b []byte) bool {
	return len(b) >= 2 && int(binary.BigEndian.Uint16(b)) == len(b)-2
}

// parsePublic reads a TPM2B_PUBLIC, which must be the template's but for the point: a key that could
// leave the TPM, or was made outside, isn't a key of a TPM for us.
func parsePublic(b []byte) (*ecdsa.PublicKey, error) {
	if !sized(b) {
		return nil, errors.New("its public area has another size than it says")
	}
	want := tpm2.Marshal(template())
	point, ok := bytes.CutPrefix(b[2:], want[:len(want)-4]) // but for the two empty coordinates
	if !ok {
		return nil, errors.New("it isn't an ECDSA P-256 key for SHA-256 that a TPM made and can't give away")
	}
	x, rest, okX := coordinate(point)
	y, rest, okY := coordinate(rest)
	if !okX || !okY || len(rest) > 0 {
		return nil, errors.New("its public point is malformed")
	}
	// SEC 1, 2.3.3: an uncompressed point.
	uncompressed := append(append([]byte{4}, x[:]...), y[:]...)
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), uncompressed)
	if err != nil {
		return nil, errors.New("its public point isn't on P-256")
	}
	return public, nil
}

// coordinate reads a TPM2B_ECC_PARAMETER. Older TPMs leave leading zeros out.
func coordinate(b []byte) (c [coordinateSize]byte, rest []byte, ok bool) {
	if len(b) < 2 {
		return c, nil, false
	}
	n := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; n > coordinateSize || n > len(b) {
		return c, nil, false
	}
	copy(c[coordinateSize-n:], b[:n])
	return c, b[n:], true
}
