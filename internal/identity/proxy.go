package identity

import (
	"fmt"
	"io"
	"log/slog"
	"net/url"

	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/secret"
)

// Proxy is an HTTP proxy, or none. It prints without its password.
type Proxy struct{ u *url.URL }

// ParseProxy reads what nodehttp.ParseProxy does.
func ParseProxy(s string) (Proxy, error) {
	u, err := nodehttp.ParseProxy(s)
	return Proxy{u}, err
}

// URL returns the proxy with its password, nil for none, for nodehttp.Options.
func (p Proxy) URL() *url.URL {
	if p.u == nil {
		return nil
	}
	u := *p.u
	return &u
}

// IsZero reports whether there is no proxy.
func (p Proxy) IsZero() bool { return p.u == nil }

// Reveal returns the URL as text, with its password. Whoever calls it answers for where it goes.
func (p Proxy) Reveal() string {
	if p.u == nil {
		return ""
	}
	return p.u.String()
}

// String returns the URL, with "redacted" for a password.
func (p Proxy) String() string {
	if p.u == nil {
		return ""
	}
	u := *p.u
	if _, has := u.User.Password(); has {
		u.User = url.UserPassword(u.User.Username(), secret.Redacted)
	}
	return u.String()
}

// Format prints what String returns, whatever the verb.
func (p Proxy) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, p.String()) }

// LogValue gives a logger what String returns.
func (p Proxy) LogValue() slog.Value { return slog.StringValue(p.String()) }

// MarshalText writes what String returns.
func (p Proxy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }
