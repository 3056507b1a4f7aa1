// Package nodehttp is how a node talks HTTPS to its platform: one call at a time, to one
// platform, trusting one pinned CA. Package enroll uses it before there is a certificate, package
// nodeclient after.
//
// It promises that nothing leaves the machine before the peer has proven, over TLS 1.3, that the
// pinned CA vouches for it under the platform's name; that no proxy is used unless one was given,
// no redirect is followed, and no answer is read beyond nodeapi.MaxResponse bytes; that a call
// ends in bounded time; and that every failure is one sentence with a kind and a remedy, in which
// no secret of the call appears. It trusts the pinned CA and the clock it is given; a connection that asks
// for the time itself is judged by no clock (Options.AnyTime).
package nodehttp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Material is everything that a connection to the platform stands on. It isn't changed once it
// is in use; a rotated certificate comes in a new Material.
type Material struct {
	// PlatformURL is the platform's URL as ParsePlatformURL returns it.
	PlatformURL string
	// CAs are the only trust anchors; the system's are never used. Not empty.
	CAs []*x509.Certificate
	// Certificate is the node's own, with its key; nil before the node is enrolled.
	Certificate *tls.Certificate
	// Proxy is an HTTP proxy that the platform is reached through, as ParseProxy returns it; nil means none.
	Proxy *url.URL
}

// TLSConfig returns a client configuration for m: TLS 1.3 or later, m's CAs only, m's
// certificate whatever issuers the server lists. now is the clock that the peer's validity is
// judged by; nil is the machine's.
func (m *Material) TLSConfig(now func() time.Time) *tls.Config {
	pool := x509.NewCertPool()
	for _, ca := range m.CAs {
		pool.AddCert(ca)
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, Time: now}
	if m.Certificate != nil {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return m.Certificate, nil
		}
	}
	return cfg
}

// Options are the settings of a Conn. The zero value is usable.
type Options struct {
	// Proxy is an HTTP proxy to go through (CONNECT); nil means the Material's, if any. The environment's
	// proxy variables are never consulted.
	Proxy *url.URL
	// Now is the clock that certificates are judged by; nil is the machine's.
	Now func() time.Time
	// AnyTime accepts a peer whose chain was, or will be, valid at any time: everything but the validity
	// against Now is checked. It is for asking what the time is, and for nothing that says a secret. A
	// proxy that itself speaks TLS is refused then.
	AnyTime bool
	// Timeout bounds a whole call, 0 means 30 s. Stall bounds the time in which not one byte of
	// the answer arrives, 0 means 15 s.
	Timeout, Stall time.Duration
	// UserAgent names the program to the platform; "" means "powernode-agent".
	UserAgent string
	// Dial opens the connections, in bounded time; nil means TCP, and 10 s.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Conn is a client of one platform with one Material. It keeps idle connections; Close drops them.
// It may be used by several goroutines.
type Conn struct {
	material  *Material
	base      string
	options   Options
	transport *http.Transport
	client    *http.Client
	// presented is the chain of the peer of the last answer.
	presented atomic.Pointer[[]*x509.Certificate]
}

// New returns a Conn. It sends nothing. A Material without CAs is refused, as is any URL but an
// https one.
func New(m *Material, o Options) (*Conn, error) {
	base, err := ParsePlatformURL(m.PlatformURL)
	if err != nil {
		return nil, err
	}
	if len(m.CAs) == 0 {
		return nil, fault.New(fault.Refuse, fault.Input, "give the node the CA certificate of the platform",
			"connect to %s: there is no CA certificate to trust", base)
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	if o.Stall == 0 {
		o.Stall = 15 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Proxy == nil {
		o.Proxy = m.Proxy
	}
	if o.UserAgent == "" {
		o.UserAgent = "powernode-agent"
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	}
	c := &Conn{material: m, base: base, options: o}
	c.transport = &http.Transport{
		DialContext:     o.Dial,
		TLSClientConfig: m.TLSConfig(o.Now),
		// A proxy's own TLS, if it has any, is judged by the same pinned CA.
		TLSHandshakeTimeout:    10 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		MaxIdleConnsPerHost:    idleConnections,
		IdleConnTimeout:        90 * time.Second,
		// Answers are small, and a compressed one could hide its size.
		DisableCompression: true,
	}
	if o.AnyTime {
		m.anyTime(c.transport.TLSClientConfig, c.Host())
	}
	if o.Proxy != nil {
		c.transport.Proxy = http.ProxyURL(o.Proxy)
	}
	c.client = &http.Client{
		Transport: c.transport,
		// A redirect would carry the token, or the certificate's authority, to another address.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Close drops the idle connections, and those in use as soon as they become idle.
func (c *Conn) Close() { c.transport.CloseIdleConnections() }

// URL returns the platform's URL.
func (c *Conn) URL() string { return c.base }

// Host returns the name, or the IP address, that the platform's certificate must be for.
func (c *Conn) Host() string { return hostOf(c.base) }

// PeerCertificates returns the chain that the server presented over the connection of the last answer, its own
// certificate first; nil before there was one. Whoever goes through several connections at the same time
// can't tell them apart by it.
func (c *Conn) PeerCertificates() []*x509.Certificate {
	if chain := c.presented.Load(); chain != nil {
		return slices.Clone(*chain)
	}
	return nil
}

// deadline derives the context of one call. It ends when the call has lasted for the whole
// timeout, when alive isn't called for the stall time, both of which begin after wait, or when it was sent too often. context.Cause tells which.
func (c *Conn) deadline(ctx context.Context, wait time.Duration) (call context.Context, alive, cancel func()) {
	ctx, stopTimeout := context.WithTimeoutCause(ctx, c.options.Timeout+wait, errTimeout)
	ctx, stop := context.WithCancelCause(ctx)
	timer := time.AfterFunc(c.options.Stall+wait, func() { stop(errStalled) })
	return bounded(ctx, stop), func() { timer.Reset(c.options.Stall) }, func() {
		timer.Stop()
		stop(nil)
		stopTimeout()
	}
}
