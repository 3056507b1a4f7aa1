package ociimage

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// transports sends each request as its host is to be spoken with.
type transports struct {
	options Options
	mu      sync.Mutex
	// byTLS has a transport for each configuration, so that no connection made with one serves
	// a host that is meant to have another.
	byTLS map[*tls.Config]*http.Transport
}

func newTransports(o Options) *transports {
	return &transports{options: o, byTLS: make(map[*tls.Config]*http.Transport)}
}

// RoundTrip sends one request.
func (t *transports) RoundTrip(req *http.Request) (*http.Response, error) {
	config := t.options.TLS
	if t.options.TLSFor != nil {
		config = t.options.TLSFor(req.URL.Host)
	}
	return t.with(config).RoundTrip(req)
}

func (t *transports) with(config *tls.Config) *http.Transport {
	t.mu.Lock()
	defer t.mu.Unlock()
	transport, ok := t.byTLS[config]
	if !ok {
		transport = newTransport(t.options, config)
		t.byTLS[config] = transport
	}
	return transport
}

func (t *transports) closeIdle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, transport := range t.byTLS {
		transport.CloseIdleConnections()
	}
}

func newTransport(o Options, config *tls.Config) *http.Transport {
	if config == nil {
		config = &tls.Config{}
	}
	config = config.Clone()
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	return &http.Transport{
		Proxy:               o.Proxy,
		DialContext:         (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:     config,
		TLSHandshakeTimeout: 15 * time.Second,
		MaxIdleConnsPerHost: 8,
		IdleConnTimeout:     90 * time.Second,
		// A blob's bytes are what its digest is of: nobody may pack and unpack them on the way.
		DisableCompression: true,
	}
}
