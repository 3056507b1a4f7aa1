package front

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/api"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// authority is a CA with which certificates for the tests are made.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	a := authority{t: t, key: newKey(t)}
	a.cert = a.sign(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, Subject: pkix.Name{CommonName: "CA"}}, now.Add(time.Hour))
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a authority) sign(template *x509.Certificate, until time.Time) *x509.Certificate {
	a.t.Helper()
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(7), now.Add(-time.Hour), until
	parent, key := a.cert, a.key
	if parent == nil {
		parent = template
	} else {
		key = newKey(a.t)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

func (a authority) node(until time.Time) *x509.Certificate {
	a.t.Helper()
	return a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "node"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, until)
}

// nginx is what nginx has in $ssl_client_escaped_cert.
func nginx(c *x509.Certificate) string {
	return strings.ReplaceAll(url.QueryEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))), "+", "%20")
}

func rfc9440(c *x509.Certificate) string {
	return ":" + base64.StdEncoding.EncodeToString(c.Raw) + ":"
}

// seen is what came through.
type seen struct {
	from, id, subject string
}

// pass sends a request through a front with two proxies, and returns what the platform gets, or the refusal.
func pass(t *testing.T, a authority, header Header, r *http.Request) (*seen, int, nodeapi.Envelope) {
	t.Helper()
	proxies, err := ParseProxies([]string{"192.0.2.1", "2001:db8::/64"})
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	var got *seen
	h := New(Options{
		Proxies: proxies, Header: header, Authorities: func() *x509.CertPool { return pool }, Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return now },
	}, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got = &seen{from: r.RemoteAddr, id: api.RequestID(r.Context())}
		if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
			got.subject = r.TLS.VerifiedChains[0][0].Subject.CommonName
		}
	}))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var env nodeapi.Envelope
	if w.Body.Len() > 0 {
		if err := json.Unmarshal(w.Body.Bytes(), &env); err != nil {
			t.Fatal(err)
		}
	}
	if id := w.Header().Get(api.HeaderRequestID); got != nil && id != got.id || id == "" || got == nil && !bytes.Contains(env.Details, []byte(id)) {
		t.Errorf("the answer has the request ID %q, its details are %s", id, env.Details)
	}
	return got, w.Code, env
}

func TestCertificates(t *testing.T) {
	a, foreign := newAuthority(t), newAuthority(t)
	good := a.node(now.Add(time.Hour))
	server := a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "server"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, now.Add(time.Hour))
	for name, tc := range map[string]struct {
		peer    string
		header  Header
		headers []string
		own     *x509.Certificate
		status  int
		code    nodeapi.Code
		subject string
	}{
		"of nginx":                         {headers: []string{"X-SSL-Client-Cert", nginx(good)}, status: 200, subject: "node"},
		"of nginx, over IPv6":              {peer: "[2001:db8::5]:9", headers: []string{"X-SSL-Client-Cert", nginx(good)}, status: 200, subject: "node"},
		"of nginx, mapped IPv4":            {peer: "[::ffff:192.0.2.1]:9", headers: []string{"X-SSL-Client-Cert", nginx(good)}, status: 200, subject: "node"},
		"by RFC 9440":                      {header: HeaderRFC9440, headers: []string{"Client-Cert", rfc9440(good)}, status: 200, subject: "node"},
		"none":                             {status: 200},
		"empty":                            {headers: []string{"X-SSL-Client-Cert", ""}, status: 200},
		"from elsewhere":                   {peer: "192.0.2.2:9", headers: []string{"X-SSL-Client-Cert", nginx(good)}, status: 400, code: nodeapi.CodeValidation},
		"from elsewhere, the other way":    {peer: "192.0.2.2:9", headers: []string{"Client-Cert", rfc9440(good)}, status: 400, code: nodeapi.CodeValidation},
		"from elsewhere, empty":            {peer: "192.0.2.2:9", headers: []string{"X-SSL-Client-Cert", ""}, status: 400, code: nodeapi.CodeValidation},
		"from no address":                  {peer: "@", headers: []string{"X-SSL-Client-Cert", nginx(good)}, status: 400, code: nodeapi.CodeValidation},
		"the client's own, passed on":      {headers: []string{"Client-Cert", rfc9440(good)}, status: 400, code: nodeapi.CodeValidation},
		"two":                              {headers: []string{"X-SSL-Client-Cert", nginx(good), "X-SSL-Client-Cert", nginx(good)}, status: 400, code: nodeapi.CodeValidation},
		"two in one":                       {headers: []string{"X-SSL-Client-Cert", nginx(good) + nginx(good)}, status: 400, code: nodeapi.CodeValidation},
		"beside one of the proxy's own":    {headers: []string{"X-SSL-Client-Cert", nginx(good)}, own: good, status: 400, code: nodeapi.CodeValidation},
		"garbage":                          {headers: []string{"X-SSL-Client-Cert", "%zz"}, status: 400, code: nodeapi.CodeValidation},
		"only a subject":                   {headers: []string{"X-SSL-Client-Cert", "CN=node"}, status: 400, code: nodeapi.CodeValidation},
		"another's way":                    {headers: []string{"X-SSL-Client-Cert", rfc9440(good)}, status: 400, code: nodeapi.CodeValidation},
		"RFC 9440 without its colons":      {header: HeaderRFC9440, headers: []string{"Client-Cert", strings.Trim(rfc9440(good), ":")}, status: 400, code: nodeapi.CodeValidation},
		"RFC 9440, no colon before it":     {header: HeaderRFC9440, headers: []string{"Client-Cert", rfc9440(good)[1:]}, status: 400, code: nodeapi.CodeValidation},
		"RFC 9440, one colon":              {header: HeaderRFC9440, headers: []string{"Client-Cert", ":"}, status: 400, code: nodeapi.CodeValidation},
		"too long":                         {headers: []string{"X-SSL-Client-Cert", strings.Repeat("A", maxCertificate+1)}, status: 400, code: nodeapi.CodeValidation},
		"expired":                          {headers: []string{"X-SSL-Client-Cert", nginx(a.node(now.Add(-time.Minute)))}, status: 401, code: nodeapi.CodeCertificateExpired},
		"of another authority":             {headers: []string{"X-SSL-Client-Cert", nginx(foreign.node(now.Add(time.Hour)))}, status: 401, code: nodeapi.CodeCertificateExpired},
		"a server's":                       {headers: []string{"X-SSL-Client-Cert", nginx(server)}, status: 401, code: nodeapi.CodeCertificateExpired},
		"shown to the platform itself":     {peer: "192.0.2.2:9", own: good, status: 200, subject: "node"},
		"shown itself, from a proxy's":     {own: good, status: 200, subject: "node"},
		"a name that isn't one of proxy's": {headers: []string{"X-Client-Cert-Subject", "CN=node"}, status: 200},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "https://platform/x", nil)
			r.TLS = &tls.ConnectionState{}
			if tc.own != nil {
				r.TLS.PeerCertificates, r.TLS.VerifiedChains = []*x509.Certificate{tc.own}, [][]*x509.Certificate{{tc.own}}
			}
			if r.RemoteAddr = tc.peer; tc.peer == "" {
				r.RemoteAddr = "192.0.2.1:9"
			}
			for i := 0; i < len(tc.headers); i += 2 {
				r.Header.Add(tc.headers[i], tc.headers[i+1])
			}
			own := r.TLS
			got, status, env := pass(t, a, tc.header, r)
			if status != tc.status || env.Code != tc.code || (got == nil) != (tc.status != 200) {
				t.Fatalf("%d %+v, passed %t", status, env, got != nil)
			}
			if got != nil && got.subject != tc.subject {
				t.Errorf("it comes as %q", got.subject)
			}
			if (len(own.VerifiedChains) > 0) != (tc.own != nil) {
				t.Error("the connection itself was changed")
			}
		})
	}
}

func TestClientAddress(t *testing.T) {
	a := newAuthority(t)
	for name, tc := range map[string]struct {
		peer      string
		forwarded []string
		want      string
	}{
		"a client":                         {"198.51.100.7:5", nil, "198.51.100.7:5"},
		"a client that says another":       {"198.51.100.7:5", []string{"203.0.113.9"}, "198.51.100.7:5"},
		"by a proxy":                       {"192.0.2.1:5", []string{"198.51.100.7"}, "198.51.100.7:0"},
		"by a proxy that says nothing":     {"192.0.2.1:5", nil, "192.0.2.1:0"},
		"by a proxy, and what came before": {"192.0.2.1:5", []string{"10.0.0.1, 198.51.100.7"}, "198.51.100.7:0"},
		"by two proxies":                   {"192.0.2.1:5", []string{"10.0.0.1, 198.51.100.7, 2001:db8::1"}, "198.51.100.7:0"},
		"in two lines":                     {"192.0.2.1:5", []string{"198.51.100.7", "2001:db8::1"}, "198.51.100.7:0"},
		"nonsense":                         {"192.0.2.1:5", []string{"unknown"}, "192.0.2.1:0"},
		"nonsense behind a proxy":          {"192.0.2.1:5", []string{"unknown, 2001:db8::1"}, "[2001:db8::1]:0"},
		"IPv6":                             {"192.0.2.1:5", []string{"2001:db8:1::9"}, "[2001:db8:1::9]:0"},
		"all are proxies":                  {"192.0.2.1:5", []string{"2001:db8::1"}, "[2001:db8::1]:0"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "https://platform/x", nil)
			r.RemoteAddr = tc.peer
			r.Header["X-Forwarded-For"] = tc.forwarded
			got, status, _ := pass(t, a, "", r)
			if got == nil || got.from != tc.want {
				t.Errorf("%d, %+v, want %s", status, got, tc.want)
			}
		})
	}
}

// TestRequestID: a proxy may name a request, nobody else.
func TestRequestID(t *testing.T) {
	a := newAuthority(t)
	for _, tc := range []struct {
		peer, id string
		kept     bool
	}{
		{"192.0.2.1:5", "edge-1.f00", true},
		{"192.0.2.1:5", "a\"b", false},
		{"192.0.2.1:5", strings.Repeat("a", 65), false},
		{"192.0.2.1:5", "", false},
		{"198.51.100.7:5", "mine", false},
	} {
		r := httptest.NewRequest(http.MethodGet, "https://platform/x", nil)
		r.RemoteAddr = tc.peer
		r.Header.Set(api.HeaderRequestID, tc.id)
		got, _, _ := pass(t, a, "", r)
		if (got.id == tc.id) != tc.kept || !tc.kept && len(got.id) != 32 {
			t.Errorf("%+v: %q", tc, got.id)
		}
	}
}

func TestParseProxies(t *testing.T) {
	for _, text := range []string{"", "proxy.example", "0.0.0.0/0", "::/0", "192.0.2.1:80", "fe80::1%eth0", "192.0.2.0/33", "::ffff:192.0.2.0/120"} {
		if got, err := ParseProxies([]string{text}); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
	got, err := ParseProxies([]string{"192.0.2.9/28", "::1"})
	if err != nil || len(got) != 2 || got[0].String() != "192.0.2.0/28" || got[1].String() != "::1/128" {
		t.Errorf("%v, %v", got, err)
	}
	if h, err := ParseHeader("client-cert"); err != nil || h != HeaderRFC9440 {
		t.Errorf("%s, %v", h, err)
	}
	if _, err := ParseHeader("X-Client-DN"); err == nil {
		t.Error("a subject's header is taken for a certificate's")
	}
}

func FuzzHeader(f *testing.F) {
	cert := newAuthority(f).cert
	f.Add(nginx(cert))
	f.Add(rfc9440(cert))
	f.Add("::")
	f.Add("%2D")
	f.Fuzz(func(t *testing.T, value string) {
		for _, h := range Headers() {
			if c, err := h.parse(value); (c == nil) == (err == nil) {
				t.Errorf("%s: %v, %v", h, c, err)
			}
		}
	})
}
