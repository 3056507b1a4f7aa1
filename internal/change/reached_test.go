package change

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
)

// TestReachedOverTLS: a status counts only from the platform itself, whatever stands in its place.
func TestReachedOverTLS(t *testing.T) {
	ca, other := pkitest.NewCA(t, "CA"), pkitest.NewCA(t, "another CA")
	says := func(status int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(`{"success":true,"data":{}}`))
		})
	}
	elsewhere := ca.Web()
	elsewhere.DNSNames, elsewhere.IPAddresses = []string{"portal"}, nil
	ended := ca.Web()
	ended.NotBefore, ended.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	plain := httptest.NewServer(says(http.StatusOK))
	defer plain.Close()
	proxy := httptest.NewServer(says(http.StatusProxyAuthRequired))
	defer proxy.Close()
	proxyURL, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	at := func(server *x509.Certificate, by *pkitest.CA, status int, alter func(*tls.Config)) string {
		return by.Serve(server, says(status), alter).URL
	}
	for name, c := range map[string]struct {
		url   string
		proxy *url.URL
		want  bool
	}{
		"an answer":             {at(ca.Web(), ca, http.StatusOK, nil), nil, true},
		"a refusal":             {at(ca.Web(), ca, http.StatusForbidden, nil), nil, true},
		"an outage":             {at(ca.Web(), ca, http.StatusServiceUnavailable, nil), nil, true},
		"a redirect":            {at(ca.Web(), ca, http.StatusFound, nil), nil, false},
		"another CA":            {at(other.Web(), other, http.StatusOK, nil), nil, false},
		"another name":          {at(elsewhere, ca, http.StatusOK, nil), nil, false},
		"a certificate's end":   {at(ended, ca, http.StatusOK, nil), nil, false},
		"an older TLS":          {at(ca.Web(), ca, http.StatusOK, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }), nil, false},
		"no TLS":                {"https" + plain.URL[len("http"):], nil, false},
		"a proxy that refuses":  {at(ca.Web(), ca, http.StatusOK, nil), proxyURL, false},
		"nobody at the address": {"https://127.0.0.1:1", nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := nodehttp.New(&nodehttp.Material{PlatformURL: c.url, CAs: []*x509.Certificate{ca.Cert}, Proxy: c.proxy}, nodehttp.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			err = conn.Do(t.Context(), nodehttp.Call{Doing: "ask", Method: http.MethodGet, Path: "/x"})
			if Reached(err) != c.want {
				t.Errorf("reached: %t: %v", !c.want, err)
			}
		})
	}
}
