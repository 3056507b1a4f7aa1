package anchor

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/identity"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
)

// seen keeps what servers were sent.
type seen struct {
	mu   sync.Mutex
	dump []string
}

func (s *seen) keep(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b, err := httputil.DumpRequest(r, true)
		if err != nil {
			panic(err)
		}
		s.mu.Lock()
		s.dump = append(s.dump, string(b))
		s.mu.Unlock()
		next(w, r)
	}
}

func answer(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
}

func envelope(t *testing.T, bundle string) string {
	t.Helper()
	data, err := json.Marshal(nodeapi.CAResponse{BundlePEM: bundle})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(nodeapi.Envelope{Success: true, Data: data})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestResolve(t *testing.T) {
	ca, other := pkitest.NewCA(t, "CA"), pkitest.NewCA(t, "Other")
	mine := []string{identity.Fingerprint(ca.Cert)}
	both := string(other.PEM()) + string(ca.PEM())
	for _, c := range []struct {
		name   string
		anchor Anchor
		url    http.HandlerFunc // of the CA's URL
		api    http.HandlerFunc // of the platform
		sends  *tls.Certificate // the platform's certificate
		most   uint16           // the latest version of TLS that is spoken
		want   string
		err    string
		kind   fault.Kind
	}{
		{name: "PEM", anchor: Anchor{PEM: ca.PEM()}, want: string(ca.PEM())},
		{name: "PEM with its fingerprint", anchor: Anchor{PEM: []byte(both), SHA256: mine}, want: string(ca.PEM())},
		{name: "PEM with another's fingerprint", anchor: Anchor{PEM: other.PEM(), SHA256: mine}, err: "no certificate has the fingerprint", kind: fault.Refuse},
		{name: "nothing", err: "no fingerprint", kind: fault.Refuse},
		{name: "a URL alone", anchor: Anchor{URL: at(t, "https://127.0.0.1:1/")}, err: "no fingerprint", kind: fault.Refuse},
		{name: "URL", anchor: Anchor{SHA256: mine}, url: answer(both), want: string(ca.PEM())},
		{name: "URL of DER", anchor: Anchor{SHA256: mine}, url: answer(string(ca.Cert.Raw)), want: string(ca.PEM())},
		{name: "URL of another's", anchor: Anchor{SHA256: mine}, url: answer(string(other.PEM())), err: "there is " + identity.Fingerprint(other.Cert)[:8] + "…", kind: fault.Refuse},
		{name: "URL of a server of old", anchor: Anchor{SHA256: mine}, url: answer(both), most: tls.VersionTLS12, want: string(ca.PEM())},
		{name: "platform without TLS 1.3", anchor: Anchor{SHA256: mine}, api: answer(envelope(t, both)), most: tls.VersionTLS12, err: "protocol version", kind: fault.Retry},
		{name: "URL of a page", anchor: Anchor{SHA256: mine}, url: answer("<html>"), err: "neither PEM nor base64", kind: fault.Refuse},
		{name: "URL of a key", anchor: Anchor{SHA256: mine}, url: answer(string(ca.PEM()) + string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}))), err: "PRIVATE KEY", kind: fault.Refuse},
		{name: "URL without end", anchor: Anchor{SHA256: mine}, url: func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(ca.PEM()); err != nil {
					return
				}
			}
		}, err: "larger than", kind: fault.Refuse},
		{name: "URL that isn't there", anchor: Anchor{SHA256: mine}, url: http.NotFound, err: "404", kind: fault.Refuse},
		{name: "URL that fails", anchor: Anchor{SHA256: mine}, url: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }, err: "503", kind: fault.Retry},
		{name: "three redirects", anchor: Anchor{SHA256: mine}, url: hops(3, string(ca.PEM())), want: string(ca.PEM())},
		{name: "four redirects", anchor: Anchor{SHA256: mine}, url: hops(4, string(ca.PEM())), err: "more than 3 redirects", kind: fault.Retry},
		{name: "a redirect elsewhere", anchor: Anchor{SHA256: mine}, url: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "ftp://x/", http.StatusFound)
		}, err: "http", kind: fault.Retry},
		{name: "platform", anchor: Anchor{SHA256: mine}, api: answer(envelope(t, both)), want: string(ca.PEM())},
		{name: "platform with another's", anchor: Anchor{SHA256: mine}, api: answer(envelope(t, string(other.PEM()))), err: "no certificate has the fingerprint", kind: fault.Refuse},
		{name: "platform that doesn't answer so", anchor: Anchor{SHA256: mine}, api: answer("{}"), err: "isn't a node_api answer", kind: fault.Refuse},
		{name: "platform of old", anchor: Anchor{SHA256: mine}, api: http.NotFound, err: "404", kind: fault.Refuse},
		{name: "platform of old that sends its CA", anchor: Anchor{SHA256: mine}, api: http.NotFound, sends: chain(ca), want: string(ca.PEM())},
		{name: "a redirecting platform", anchor: Anchor{SHA256: mine}, api: hops(1, envelope(t, both)), err: "302", kind: fault.Refuse},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s seen
			a := c.anchor
			if c.url != nil {
				server := httptest.NewUnstartedServer(s.keep(c.url))
				server.TLS = &tls.Config{MaxVersion: c.most}
				server.StartTLS()
				defer server.Close()
				a.URL = at(t, server.URL+"/ca.pem?X-Amz-Signature=hunter2")
			}
			a.PlatformURL = "https://127.0.0.1:1"
			if c.api != nil {
				server := httptest.NewUnstartedServer(s.keep(c.api))
				server.TLS = &tls.Config{MaxVersion: c.most}
				if c.sends != nil {
					server.TLS.Certificates = []tls.Certificate{*c.sends}
				}
				server.StartTLS()
				defer server.Close()
				a.PlatformURL = server.URL
			}
			got, err := a.Resolve(t.Context())
			if string(got) != c.want || (err != nil) != (c.err != "") || err != nil && (!strings.Contains(err.Error(), c.err) || fault.KindOf(err) != c.kind || fault.HintOf(err) == "") {
				t.Errorf("%d bytes, kind %v, %v; want %q", len(got), fault.KindOf(err), err, c.err)
			}
			if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), identity.Fingerprint(other.Cert))) {
				t.Errorf("it shows what lets one read the CA's URL, or what a stranger would have one trust: %v", err)
			}
			for i, request := range s.dump {
				if !strings.HasPrefix(request, "GET /") || len(request) > 250 || i > 0 && strings.Contains(request, "hunter2") {
					t.Errorf("sent: %s", request)
				}
			}
		})
	}
}

func at(t *testing.T, s string) identity.CAURL {
	t.Helper()
	u, err := identity.ParseCAURL(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// chain is a server's certificate that is sent with its CA's.
func chain(ca *pkitest.CA) *tls.Certificate {
	pair := ca.Issue(ca.Web())
	pair.Certificate = append(pair.Certificate, ca.Cert.Raw)
	return pair
}

// hops redirects n times before it answers.
func hops(n int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		at := 0
		if _, err := fmt.Sscanf(r.URL.Query().Get("n"), "%d", &at); err != nil {
			at = 0
		}
		if at == n {
			_, _ = io.WriteString(w, body)
			return
		}
		http.Redirect(w, r, fmt.Sprintf("%s?n=%d", r.URL.Path, at+1), http.StatusFound)
	}
}

// TestNobody has an address where nobody listens, and one that never answers.
func TestNobody(t *testing.T) {
	mine := []string{strings.Repeat("0", 64)}
	if _, err := (Anchor{SHA256: mine, URL: at(t, "http://127.0.0.1:1/")}).Resolve(t.Context()); fault.KindOf(err) != fault.Retry {
		t.Error(err)
	}
	end := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-end }))
	defer silent.Close()
	defer close(end)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, fmt.Errorf("enough"))
	defer cancel()
	if _, err := (Anchor{SHA256: mine, URL: at(t, silent.URL)}).Resolve(ctx); fault.KindOf(err) != fault.Retry || !strings.Contains(err.Error(), "enough") {
		t.Error(err)
	}
}

// TestProxy: both ways go through the proxy that is given, and the environment's counts for nothing.
func TestProxy(t *testing.T) {
	ca := pkitest.NewCA(t, "CA")
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	var s seen
	proxy := httptest.NewServer(s.keep(answer(string(ca.PEM()))))
	defer proxy.Close()
	u, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	a := Anchor{SHA256: []string{identity.Fingerprint(ca.Cert)}, URL: at(t, "http://boot.invalid/ca.pem"), PlatformURL: "https://platform.invalid", Proxy: u}
	if got, err := a.Resolve(t.Context()); err != nil || string(got) != string(ca.PEM()) {
		t.Error(err)
	}
	a.URL = identity.CAURL{}
	if _, err := a.Resolve(t.Context()); err == nil {
		t.Error("a proxy that isn't one for TLS")
	}
	if len(s.dump) != 2 || !strings.HasPrefix(s.dump[0], "GET http://boot.invalid/") || !strings.HasPrefix(s.dump[1], "CONNECT platform.invalid:443 ") {
		t.Errorf("%q", s.dump)
	}
}

// TestThrough asks nobody: it is about whom would be asked.
func TestThrough(t *testing.T) {
	proxy := &url.URL{Scheme: "http", Host: "proxy.example:3128"}
	for to, by := range map[string]*url.URL{
		"https://10.0.0.1/ca.pem": proxy, "http://p.example:8080/ca.pem": proxy, "http://[2001:db8::1]/": proxy,
		"http://169.254.1.2/ca.pem": nil, "http://[fe80::1%25eth0]:80/": nil, "http://[::ffff:169.254.1.2]/": nil,
	} {
		u, err := url.Parse(to)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := through(proxy)(&http.Request{URL: u}); err != nil || got != by {
			t.Errorf("%s goes by %v, %v", to, got, err)
		}
	}
}

func FuzzBundle(f *testing.F) {
	f.Add([]byte(`{"success":true,"data":{"bundle_pem":"-----BEGIN CERTIFICATE-----"}}`))
	f.Add([]byte(`{"success":true}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if bundle, err := bundleOf(b); err == nil && len(bundle) == 0 {
			t.Fatal("nothing, and no error")
		}
	})
}
