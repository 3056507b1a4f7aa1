package ociimage

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/retry"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Options configures a Client. The zero value speaks TLS with the system's certificates and
// without credentials.
type Options struct {
	// TLS holds the pinned CA pool (RootCAs) and a node's client certificate. At least TLS 1.2
	// is spoken whatever it says. It is for every host, those that a registry redirects to among
	// them, unless TLSFor is set.
	TLS *tls.Config
	// TLSFor chooses by host[:port], as the URL has it, and goes before TLS; nil from it means the
	// system's certificates and none of one's own. It returns the same pointer for all hosts that
	// are dealt with alike, and is called by several goroutines at once.
	TLSFor func(host string) *tls.Config
	// Credential returns the user and password for a registry's host[:port]; empty for none.
	// They are sent to that host, and to the token service that it names, only.
	Credential func(ctx context.Context, host string) (username, password string, err error)
	// Access, where it isn't nil, goes before Credential. It is asked where a registry wants credentials, by host[:port] and the
	// path of the repository, and asked again where it wants others, as when a token has expired.
	Access func(ctx context.Context, host, repository string) (Access, error)
	// PlainHTTP speaks http to loopback addresses, for tests and trials on one machine. Any
	// other address is refused then.
	PlainHTTP bool
	// Proxy chooses the HTTP proxy for a request; nil means none, whatever the environment says.
	Proxy func(*http.Request) (*url.URL, error)
	// UserAgent names the program; empty leaves it to the library.
	UserAgent string
	// Retry says how failing requests are repeated.
	Retry Retrying
	// Stall is how long a connection may make no progress; 0 means a minute. There is no limit
	// on the whole of a transfer but the caller's context.
	Stall time.Duration
}

// Client speaks to registries. It is safe for concurrent use.
type Client struct {
	options Options
	base    *transports
	// auth repeats failing requests; once doesn't, for downloads, which do so themselves.
	auth, once *auth.Client
	mu         sync.Mutex
	// repositories remembers by name what was learned of each: whether it has the referrers API.
	repositories map[string]*remote.Repository
}

// NewClient returns a Client.
func NewClient(o Options) *Client {
	o.Retry = o.Retry.withDefaults()
	if o.Stall == 0 {
		o.Stall = time.Minute
	}
	base := newTransports(o)
	c := &Client{options: o, base: base, repositories: make(map[string]*remote.Repository)}
	guarded := &guard{base: base, plainLoopback: o.PlainHTTP, stall: o.Stall}
	c.auth = &auth.Client{
		Client: &http.Client{Transport: &retry.Transport{Base: guarded, Policy: o.Retry.policy}},
		Cache:  auth.NewCache(),
	}
	if o.UserAgent != "" {
		c.auth.SetUserAgent(o.UserAgent)
	}
	if o.Credential != nil {
		c.auth.Credential = func(ctx context.Context, host string) (auth.Credential, error) {
			user, password, err := o.Credential(ctx, host)
			return auth.Credential{Username: user, Password: password}, err
		}
	}
	if o.Access != nil {
		c.auth.Credential = o.credential
	}
	if o.PlainHTTP {
		// The library refuses token services on loopback addresses; there, they are all there is.
		c.auth.BlockedRealmPrefixes = []netip.Prefix{}
	}
	once := *c.auth
	once.Client = &http.Client{Transport: guarded}
	c.once = &once
	return c
}

// Close closes idle connections.
func (c *Client) Close() { c.base.closeIdle() }

// repository returns the library's view of host[:port]/path.
func (c *Client) repository(name string) (*remote.Repository, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, ok := c.repositories[name]; ok {
		return r, nil
	}
	ref, err := registry.ParseReference(name)
	if err != nil || ref.Reference != "" || strings.Contains(name, "@") {
		return nil, fault.New(fault.Refuse, fault.Input, "write it as host/path", "repository name %.300q is not valid", name)
	}
	r := &remote.Repository{
		Reference:            ref,
		Client:               c.auth,
		PlainHTTP:            c.options.PlainHTTP,
		MaxMetadataBytes:     documentMax,
		ReferrerListMaxPages: referrerPagesMax,
		// Deleting an outdated fallback index is often forbidden, and nobody reads it.
		SkipReferrersGC: true,
	}
	c.repositories[name] = r
	return r, nil
}
