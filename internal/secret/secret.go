// Package secret holds a text that must not be seen: a bootstrap token, a passphrase.
//
// It promises that no formatting verb, logger or JSON encoder shows the text, also when the
// holder sits in an unexported field of a printed struct. It doesn't promise to erase memory.
// It trusts nothing and imports only the standard library.
package secret

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

// Redacted is what is shown in place of a secret.
const Redacted = "redacted"

// Text is a secret text. The zero value holds none.
//
// The text sits behind a pointer because fmt prints unexported fields of an enclosing struct
// without asking their methods; a nested pointer is printed as an address.
type Text struct{ p *string }

// New returns a Text that holds s; an empty s gives the zero value.
func New(s string) Text {
	if s == "" {
		return Text{}
	}
	return Text{&s}
}

// Reveal returns the secret itself, or "" where there is none. Whoever calls it answers for
// where the text goes.
func (t Text) Reveal() string {
	if t.p == nil {
		return ""
	}
	return *t.p
}

// IsZero reports whether there is no secret.
func (t Text) IsZero() bool { return t.p == nil }

// Equal compares two secrets in a time that depends on their lengths only.
func (t Text) Equal(o Text) bool {
	return subtle.ConstantTimeCompare([]byte(t.Reveal()), []byte(o.Reveal())) == 1
}

// String returns "redacted", or "" where there is no secret.
func (t Text) String() string {
	if t.IsZero() {
		return ""
	}
	return Redacted
}

// GoString returns what String returns.
func (t Text) GoString() string { return t.String() }

// Format prints what String returns, whatever the verb.
func (t Text) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, t.String()) }

// LogValue gives a logger what String returns.
func (t Text) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalJSON writes what String returns. There is no way back: a secret is stored by who
// reveals it.
func (t Text) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte(`""`), nil
	}
	return []byte(`"` + Redacted + `"`), nil
}

// MarshalText writes what String returns, for encoders other than JSON.
func (t Text) MarshalText() ([]byte, error) { return []byte(t.String()), nil }
