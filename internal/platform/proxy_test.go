package platform_test

import (
	"crypto/tls"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
	"github.com/powernode/powernode-agent/internal/platform"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// behind starts a proxy before the platform that ends TLS and does with certificates as nginx does. from is its address.
func behind(t *testing.T, p *platformtest.Platform, from string) *httptest.Server {
	t.Helper()
	to, err := url.Parse(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	config, err := p.Config.TLS()
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: config, DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext}
	t.Cleanup(transport.CloseIdleConnections)
	proxy := httptest.NewUnstartedServer(&httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.SetXForwarded()
		r.Out.Header.Del("X-SSL-Client-Cert")
		if certs := r.In.TLS.PeerCertificates; len(certs) > 0 {
			text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certs[0].Raw})
			r.Out.Header.Set("X-SSL-Client-Cert", strings.ReplaceAll(url.QueryEscape(string(text)), "+", "%20"))
		}
	}})
	proxy.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert}
	proxy.StartTLS()
	t.Cleanup(proxy.Close)
	return proxy
}

// TestBehindProxy: a node is itself through a proxy at a listed address, and through no other.
func TestBehindProxy(t *testing.T) {
	p := platformtest.StartWith(t, platform.Options{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}})
	node := p.Enroll("web", "amd64")
	ask := func(proxy *httptest.Server, node *platformtest.Node, path string, headers ...string) (int, string) {
		t.Helper()
		client := proxy.Client()
		transport := client.Transport.(*http.Transport).Clone()
		if transport.TLSClientConfig.Certificates = nil; node != nil {
			transport.TLSClientConfig.Certificates = []tls.Certificate{node.TLS}
		}
		client.Transport = transport
		defer transport.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, proxy.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode, resp.Header.Get("X-Request-Id")
	}
	listed, other := behind(t, p, "127.0.0.2"), behind(t, p, "127.0.0.3")
	if status, id := ask(listed, node, nodeapi.PathModules); status != http.StatusOK || len(id) != 32 {
		t.Errorf("through the proxy: %d, request %q", status, id)
	}
	if status, _ := ask(listed, nil, nodeapi.PathModules); status != http.StatusUnauthorized {
		t.Errorf("through the proxy, without a certificate: %d", status)
	}
	if status, _ := ask(listed, nil, nodeapi.PathCA); status != http.StatusOK {
		t.Errorf("what is for everyone, through the proxy: %d", status)
	}
	if status, _ := ask(other, node, nodeapi.PathModules); status != http.StatusBadRequest {
		t.Errorf("through another proxy: %d", status)
	}
	if status, _ := ask(listed, nil, nodeapi.PathModules, "Client-Cert", ":AAAA:"); status != http.StatusBadRequest {
		t.Errorf("a header that the proxy doesn't know: %d", status)
	}
	if a := p.Do(node, http.MethodGet, nodeapi.PathModules, nil); a.Status != http.StatusOK {
		t.Errorf("without the proxy: %d %s", a.Status, a.Body)
	}
	if a := p.Do(node, http.MethodGet, nodeapi.PathModules, nil, "X-SSL-Client-Cert", "x"); a.Status != http.StatusBadRequest || a.Envelope.Code != nodeapi.CodeValidation {
		t.Errorf("a client that sends the header itself: %d %s", a.Status, a.Body)
	}
	if _, err := p.Operator.RevokeNode(t.Context(), "web", operatorapi.RevokeRequest{}); err != nil {
		t.Fatal(err)
	}
	if status, _ := ask(listed, node, nodeapi.PathModules); status != http.StatusUnauthorized {
		t.Errorf("revoked, through the proxy: %d", status)
	}
	// The log names the client, not the proxy.
	if a := p.Do(nil, http.MethodPost, operatorapi.PathNodes, operatorapi.NodeCreate{Name: "x"}, "X-Forwarded-For", "203.0.113.9", "Authorization", "Bearer "+p.Config.Token.Reveal()); a.Status != http.StatusOK {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	if got := audit(t, p, operatorclient.AuditQuery{Limit: 1})[0]; got.From != "127.0.0.1" {
		t.Errorf("who says where it comes from, without being a proxy, comes from %s", got.From)
	}
}

// TestRequestIDs: every answer names its request, and an error says it, too.
func TestRequestIDs(t *testing.T) {
	p := platformtest.Start(t)
	ids := map[string]bool{}
	for _, path := range []string{"/healthz", nodeapi.PathCA, nodeapi.PathModules, operatorapi.PathNodes, "/v2/", "/nothing", "/api/nothing"} {
		a := p.Do(nil, http.MethodGet, path, nil, "X-Request-Id", "mine")
		id := a.Header.Get("X-Request-Id")
		if len(id) != 32 || ids[id] {
			t.Errorf("%s: request %q", path, id)
		}
		if ids[id] = true; a.Envelope.Code != "" && !strings.Contains(string(a.Envelope.Details), id) {
			t.Errorf("%s: %s doesn't name request %s", path, a.Envelope.Details, id)
		}
	}
}

// TestAnonymousBounds: whoever asks without being known is told to wait, also at what is for everyone beside the calls of the API, which
// TestOpenAPI makes too often.
func TestAnonymousBounds(t *testing.T) {
	p := platformtest.Start(t)
	defer p.Clock.Stop()()
	client := p.Client(nil)
	client.Transport.(*http.Transport).DisableKeepAlives = false
	t.Cleanup(client.CloseIdleConnections)
	for _, c := range []struct{ method, path, body string }{
		{http.MethodGet, "/healthz", ""},
		{http.MethodGet, "/claim/ABCDEFGH", ""},
	} {
		refused := 0
		// More than the largest burst.
		for range 5000 {
			req, err := http.NewRequestWithContext(t.Context(), c.method, p.URL+c.path, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode == http.StatusTooManyRequests {
				if refused++; resp.Header.Get("Retry-After") == "" {
					t.Fatalf("%s: no Retry-After", c.path)
				}
				break
			}
		}
		if refused == 0 {
			t.Errorf("%s %s may be called without end", c.method, c.path)
		}
	}
}
