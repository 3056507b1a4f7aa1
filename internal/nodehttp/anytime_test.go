package nodehttp

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
)

const year = 365 * 24 * time.Hour

// crossed returns the certificate by which the old authority vouches for the key of the new one.
func crossed(from, to *pkitest.CA) *x509.Certificate {
	tmpl := *to.Cert
	tmpl.AuthorityKeyId = nil
	return from.Sign(&tmpl, to.Cert.PublicKey)
}

func ok(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"success":true}`) }

// TestAnyTime: nothing but the time of the certificates is left out.
func TestAnyTime(t *testing.T) {
	old, ca, other := pkitest.NewCA(t, "Old CA"), pkitest.NewCA(t, "CA"), pkitest.NewCA(t, "Other CA")
	between := func(from, until time.Duration) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(until) }
	}
	for _, c := range []struct {
		name  string
		by    *pkitest.CA
		alter func(*x509.Certificate)
		tls   func(*tls.Config)
		trust *x509.Certificate
		host  string
		want  expect // none for success
	}{
		{name: "valid", by: ca},
		{name: "ended long ago", by: ca, alter: between(-year/2, -year/4)},
		{name: "begins in years", by: ca, alter: between(5*year, 6*year)},
		{name: "as localhost", by: ca, host: "localhost"},
		{name: "through a cross certificate", by: ca, trust: old.Cert, tls: func(cfg *tls.Config) {
			cfg.Certificates[0].Certificate = append(cfg.Certificates[0].Certificate, crossed(old, ca).Raw)
		}},
		{name: "of the new authority without it", by: ca, trust: old.Cert, want: expect{fault.Refuse, "isn't signed by the CA that this node trusts (CN=Old CA)", "CA certificate"}},
		{name: "another authority", by: other, want: expect{fault.Refuse, "(issuer CN=Other CA) isn't signed by the CA", "CA certificate"}},
		{name: "another name", by: ca, alter: func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = []string{"p.example"}, nil }, want: expect{fault.Refuse, "is for p.example, not for 127.0.0.1", "name"}},
		{name: "no name", by: ca, alter: func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, nil }, want: expect{fault.Refuse, "no name at all", ""}},
		{name: "a node's certificate", by: ca, alter: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, want: expect{fault.Refuse, "certificate is refused", ""}},
		{name: "never valid with its authority", by: ca, alter: between(-3*year, -2*year), want: expect{fault.Refuse, "never valid at the same time", "renew"}},
		{name: "TLS 1.2", by: ca, tls: func(cfg *tls.Config) { cfg.MinVersion, cfg.MaxVersion = 0, tls.VersionTLS12 }, want: expect{fault.Refuse, "doesn't speak TLS 1.3", ""}},
		{name: "a chain without end", by: ca, tls: func(cfg *tls.Config) {
			for range maxPresented {
				cfg.Certificates[0].Certificate = append(cfg.Certificates[0].Certificate, other.Cert.Raw)
			}
		}, want: expect{fault.Refuse, "the server presented 17 certificates", ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			web := c.by.Web()
			if c.alter != nil {
				c.alter(web)
			}
			reached := false
			srv := c.by.Serve(web, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { reached = true; ok(w, r) }), c.tls)
			trust := c.trust
			if trust == nil {
				trust = ca.Cert
			}
			base := srv.URL
			if c.host != "" {
				base = strings.Replace(base, "127.0.0.1", c.host, 1)
			}
			// The clock is wrong both ways.
			for _, off := range []time.Duration{-15 * year, 15 * year} {
				conn := connect(t, base, Options{AnyTime: true, Now: func() time.Time { return time.Now().Add(off) }}, trust)
				err := conn.Do(t.Context(), Call{Doing: "try", Method: "GET", Path: "/"})
				if c.want == (expect{}) {
					if err != nil {
						t.Fatal(err)
					}
					continue
				}
				c.want.check(t, err)
				if reached {
					t.Fatal("the request was sent")
				}
			}
		})
	}
}

// TestAnyTimeProxy: a proxy that isn't the platform can't stand in for it.
func TestAnyTimeProxy(t *testing.T) {
	ca := pkitest.NewCA(t, "CA")
	web := ca.Web()
	web.DNSNames, web.IPAddresses = []string{"platform.example"}, nil
	srv := ca.Serve(web, http.HandlerFunc(ok), nil)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer proxy.Close()
	u, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{{AnyTime: true}, {AnyTime: true, Proxy: u}} {
		if err := connect(t, srv.URL, o, ca.Cert).Do(t.Context(), Call{Doing: "try", Method: "GET", Path: "/"}); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}

// TestPeerCertificates: the presented chain can be held against other authorities.
func TestPeerCertificates(t *testing.T) {
	old, ca := pkitest.NewCA(t, "Old CA"), pkitest.NewCA(t, "CA")
	srv := ca.Serve(ca.Web(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }), func(cfg *tls.Config) {
		cfg.Certificates[0].Certificate = append(cfg.Certificates[0].Certificate, crossed(old, ca).Raw)
	})
	conn := connect(t, srv.URL, Options{}, old.Cert)
	if chain := conn.PeerCertificates(); chain != nil {
		t.Fatalf("before the first answer: %d", len(chain))
	}
	if err := conn.Do(t.Context(), Call{Doing: "try", Method: "GET", Path: "/"}); StatusOf(err) != http.StatusNotFound {
		t.Fatal(err)
	}
	chain := conn.PeerCertificates()
	if len(chain) != 2 || conn.Host() != "127.0.0.1" {
		t.Fatalf("%d certificates of %s", len(chain), conn.Host())
	}
	now, other := time.Now(), pkitest.NewCA(t, "Other CA")
	for _, c := range []struct {
		name  string
		chain []*x509.Certificate
		host  string
		cas   []*x509.Certificate
		now   time.Time
		good  bool
	}{
		{"the new one", chain, "127.0.0.1", []*x509.Certificate{ca.Cert}, now, true},
		{"both", chain, "localhost", []*x509.Certificate{other.Cert, old.Cert}, now, true},
		{"another", chain, "127.0.0.1", []*x509.Certificate{other.Cert}, now, false},
		{"none", chain, "127.0.0.1", nil, now, false},
		{"without the cross certificate", chain[:1], "127.0.0.1", []*x509.Certificate{old.Cert}, now, false},
		{"later", chain, "127.0.0.1", []*x509.Certificate{ca.Cert}, now.Add(year), false},
		{"another name", chain, "p.example", []*x509.Certificate{ca.Cert}, now, false},
		{"no chain", nil, "127.0.0.1", []*x509.Certificate{ca.Cert}, now, false},
	} {
		if err := Verifies(c.chain, c.host, c.cas, c.now); (err == nil) != c.good {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
