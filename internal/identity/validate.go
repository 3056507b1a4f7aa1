package identity

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/secret"
)

// claims is what a source read, unchecked.
type claims struct {
	instanceID, token, platformURL string
	// ca is a PEM bundle as text (with real or written "\n" line ends) or in base64; caFile names
	// a file of one. ca wins.
	ca, caFile string
	// key gives the name that the source has for a field, for messages.
	key func(field) string
}

type field int

const (
	fieldInstanceID field = iota
	fieldToken
	fieldPlatformURL
	fieldCA
	fieldCAFile
)

func (c claims) empty() bool {
	return c.instanceID == "" && c.token == "" && c.platformURL == "" && c.ca == "" && c.caFile == ""
}

// check turns claims into a Found. The first field that is wrong makes the whole source's word
// worth nothing: half an identity of a damaged file isn't one.
func (c claims) check(where string) (Found, error) {
	found := Found{Where: where}
	wrong := func(f field, err error) error {
		return fault.New(fault.Refuse, fault.Input, fault.HintOf(err), "%s: %w", c.key(f), err)
	}
	var err error
	if c.instanceID != "" {
		if found.InstanceID, err = ParseInstanceID(c.instanceID); err != nil {
			return Found{}, wrong(fieldInstanceID, err)
		}
	}
	if c.token != "" {
		if found.Token, err = ParseToken(c.token); err != nil {
			return Found{}, wrong(fieldToken, err)
		}
	}
	if c.platformURL != "" {
		if found.PlatformURL, err = nodehttp.ParsePlatformURL(c.platformURL); err != nil {
			return Found{}, wrong(fieldPlatformURL, err)
		}
	}
	switch {
	case c.ca != "":
		if found.CAPEM, err = parseCA(c.ca); err != nil {
			return Found{}, wrong(fieldCA, err)
		}
	case c.caFile != "":
		text, err := readFile(c.caFile, nodehttp.MaxCABytes)
		if err == nil {
			found.CAPEM, err = parseCA(string(text))
		}
		if err != nil {
			return Found{}, wrong(fieldCAFile, err)
		}
	}
	return found, nil
}

// ParseInstanceID checks a UUID in its 36-character form and returns it in lower case.
func ParseInstanceID(s string) (string, error) {
	id := strings.ToLower(s)
	ok := len(id) == 36
	for i := 0; ok && i < len(id); i++ {
		switch c := id[i]; i {
		case 8, 13, 18, 23:
			ok = c == '-'
		default:
			ok = c >= '0' && c <= '9' || c >= 'a' && c <= 'f'
		}
	}
	switch {
	case !ok:
		return "", fmt.Errorf("%.60q isn't a UUID", s)
	case id == "00000000-0000-0000-0000-000000000000":
		return "", errors.New("the UUID is all zeros")
	}
	return id, nil
}

const minToken, maxToken = 16, 512

// ParseToken checks that s can be a bootstrap token: 16 to 512 characters of those that HTTP's
// token68 allows (RFC 9110, 11.2), which every base64 form fits. The error doesn't show s.
func ParseToken(s string) (secret.Text, error) {
	if len(s) < minToken || len(s) > maxToken {
		return secret.Text{}, fmt.Errorf("a bootstrap token has %d to %d characters, this has %d", minToken, maxToken, len(s))
	}
	for i, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case strings.IndexByte("-._~+/=", c) >= 0:
		default:
			return secret.Text{}, fmt.Errorf("character %d can't be part of a bootstrap token", i+1)
		}
	}
	return secret.New(s), nil
}

// parseCA reads a CA bundle from where line ends may not survive: PEM, PEM with written "\n", or
// base64 (any alphabet, any padding) of PEM or of one DER certificate. It returns PEM.
func parseCA(s string) ([]byte, error) {
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
	var out []byte
	for _, ca := range cas {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})...)
	}
	return out, nil
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
