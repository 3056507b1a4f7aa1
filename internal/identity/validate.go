package identity

import (
	"errors"
	"fmt"
	"strings"

	"github.com/powernode/powernode-agent/internal/secret"
)

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
