package fsverity

import (
	"encoding/hex"
	"fmt"
)

// Digest is a file's fs-verity digest: SHA-256, 4096-byte Merkle blocks, no salt. The zero value
// means "no digest"; no file has it.
type Digest [32]byte

// ParseDigest reads 64 lower-case hexadecimal digits.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if len(s) != 2*len(d) {
		return Digest{}, fmt.Errorf("fs-verity digest %.80q: want 64 hexadecimal digits, got %d characters", s, len(s))
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return Digest{}, fmt.Errorf("fs-verity digest %.80q: want lower-case hexadecimal digits", s)
		}
	}
	if _, err := hex.Decode(d[:], []byte(s)); err != nil {
		return Digest{}, fmt.Errorf("fs-verity digest %.80q: %w", s, err)
	}
	return d, nil
}

// IsZero reports whether d stands for "no digest".
func (d Digest) IsZero() bool { return d == Digest{} }

// String returns 64 lower-case hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// ObjectPath returns the object's path below an object store, as composefs lays it out: the
// first two digits, a slash, the other 62.
func (d Digest) ObjectPath() string {
	s := d.String()
	return s[:2] + "/" + s[2:]
}

// MarshalText returns the same digits as String; a zero digest becomes the empty text.
func (d Digest) MarshalText() ([]byte, error) {
	if d.IsZero() {
		return []byte{}, nil
	}
	return []byte(d.String()), nil
}

// UnmarshalText reads what MarshalText writes.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*d = Digest{}
		return nil
	}
	parsed, err := ParseDigest(string(text))
	if err != nil {
		return err
	}
	*d = parsed
	return nil
}
