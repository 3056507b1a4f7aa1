package identity

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/nodehttp"
)

// ParseCA reads a CA bundle from where line ends may not survive: PEM, PEM with written "\n", or
// base64 (any alphabet, any padding) of PEM or of one DER certificate. It returns PEM.
func ParseCA(s string) ([]byte, error) {
	text := []byte(s)
	if !strings.Contains(s, "-----BEGIN") {
		der, err := decodeBase64(s)
		if err != nil {
			return nil, errors.New("it is neither PEM nor base64")
		}
		if text = der; !bytes.Contains(der, []byte("-----BEGIN")) {
			text = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		}
	} else if !strings.Contains(s, "\n") {
		text = []byte(strings.ReplaceAll(s, `\n`, "\n"))
	}
	cas, err := nodehttp.ParseCAs(text)
	if err != nil {
		return nil, err
	}
	return encode(cas), nil
}

func encode(cas []*x509.Certificate) []byte {
	var out []byte
	for _, ca := range cas {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})...)
	}
	return out
}

// Fingerprint returns the SHA-256 of a certificate's DER in lower-case hexadecimal digits.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// shownDigits is how much of a fingerprint that nobody vouches for is shown, in hexadecimal digits: enough to tell two apart.
const shownDigits = 8

// SelectCAs returns those certificates of a PEM bundle, as ParseCA returns it, that have one of the
// fingerprints, and an error where none has. It shows how the fingerprints of what is there begin, and no more: whoever
// answered in the platform's place would be glad of a person who copies the one that "works".
func SelectCAs(bundle []byte, fingerprints []string) ([]byte, error) {
	cas, err := nodehttp.ParseCAs(bundle)
	if err != nil {
		return nil, err
	}
	var there []string
	cas = slices.DeleteFunc(cas, func(c *x509.Certificate) bool {
		mark := Fingerprint(c)
		there = append(there, mark[:shownDigits]+"…")
		return !slices.Contains(fingerprints, mark)
	})
	if len(cas) == 0 {
		return nil, fmt.Errorf("no certificate has the fingerprint %s; there is %s", strings.Join(fingerprints, " or "), strings.Join(there, ", "))
	}
	return encode(cas), nil
}

func decodeBase64(s string) ([]byte, error) {
	s = strings.Join(strings.Fields(s), "")
	s = strings.TrimRight(s, "=")
	s = strings.NewReplacer("-", "+", "_", "/").Replace(s)
	if s == "" {
		return nil, errors.New("empty")
	}
	return base64.RawStdEncoding.DecodeString(s)
}
