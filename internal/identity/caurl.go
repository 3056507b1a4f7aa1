package identity

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"

	"github.com/powernode/powernode-agent/internal/secret"
)

// CAURL is where a CA bundle can be had, or nowhere. It prints without its query, which may be a signature that lets whoever has
// it read from a store.
type CAURL struct{ text string }

// maxCAURL bounds a CA's URL, in bytes.
const maxCAURL = 2048

// ParseCAURL checks where a CA bundle is to be had: http or https, because the fingerprint proves
// what comes from there, without a user name and without a fragment. Errors show no query.
func ParseCAURL(s string) (CAURL, error) {
	if len(s) > maxCAURL {
		return CAURL{}, errors.New("the URL is too long")
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Opaque != "" || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		return CAURL{}, errors.New("it isn't an http:// or https:// URL")
	case u.User != nil:
		return CAURL{}, fmt.Errorf("the URL of host %.100q carries a user name or password", u.Host)
	case u.Fragment != "":
		return CAURL{}, errors.New("the URL has a fragment")
	}
	return CAURL{u.String()}, nil
}

// IsZero reports whether there is none.
func (c CAURL) IsZero() bool { return c.text == "" }

// Reveal returns the URL with its query, for who asks there. Whoever calls it answers for where it goes.
func (c CAURL) Reveal() string { return c.text }

// String returns the URL, with "redacted" for a query.
func (c CAURL) String() string {
	if before, _, has := strings.Cut(c.text, "?"); has {
		return before + "?" + secret.Redacted
	}
	return c.text
}

// Format prints what String returns, whatever the verb.
func (c CAURL) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, c.String()) }

// LogValue gives a logger what String returns.
func (c CAURL) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText writes what String returns.
func (c CAURL) MarshalText() ([]byte, error) { return []byte(c.String()), nil }
