package replica

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/secret"
)

// MinSecret is how long the secret must be, in bytes: enough for 128 random bits in hexadecimal digits.
const MinSecret = 32

// seal encrypts by a secret that several platforms have: AES-256-GCM, by a key that HKDF-SHA256 (RFC 5869) makes of the secret.
type seal struct{ aead cipher.AEAD }

func newSeal(text secret.Text) (*seal, error) {
	if text.IsZero() {
		return nil, nil //nolint:nilnil // no secret, no seal
	}
	if len(text.Reveal()) < MinSecret {
		return nil, fault.New(fault.Refuse, fault.Input, "make one: openssl rand -hex 32", "the secret that platforms share has less than %d bytes", MinSecret)
	}
	key, err := hkdf.Key(sha256.New, []byte(text.Reveal()), nil, "powernode-platform certificate authority v1", 32)
	if err != nil {
		return nil, fmt.Errorf("make a key of the shared secret: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return &seal{aead}, err
}

// close encrypts data for one version of one platform's authorities.
func (s *seal) close(data []byte, origin string, version int64) []byte {
	return s.aead.Seal(nil, nil, data, about(origin, version))
}

// open decrypts what close made. A version that was put in another's place doesn't open.
func (s *seal) open(sealed []byte, origin string, version int64) ([]byte, error) {
	data, err := s.aead.Open(nil, nil, sealed, about(origin, version))
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Input, "name the file with the secret of the first platform with --shared-secret-file",
			"the certificate authority in the database isn't encrypted by this platform's secret, or is damaged")
	}
	return data, nil
}

func about(origin string, version int64) []byte { return fmt.Appendf(nil, "%s %d", origin, version) }
