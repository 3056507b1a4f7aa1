package ociimage

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/layer"
)

// serveTLS runs a handler with TLS; its certificate is signed by itself.
func serveTLS(t *testing.T, h http.Handler, clients *x509.CertPool) (host string, server *httptest.Server) {
	t.Helper()
	server = httptest.NewUnstartedServer(h)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	if clients != nil {
		server.TLS.ClientAuth, server.TLS.ClientCAs = tls.RequireAndVerifyClientCert, clients
	}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "https://"), server
}

func poolOf(server *httptest.Server) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	return pool
}

// nodeCertificate makes a certificate such as a node has, and the pool that holds its CA: itself.
func nodeCertificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "node"}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, pool
}

func tlsClient(t *testing.T, o Options) *Client {
	t.Helper()
	o.Retry = quick
	c := NewClient(o)
	t.Cleanup(c.Close)
	return c
}

func TestTLSAndClientCertificates(t *testing.T) {
	open, openServer := serveTLS(t, newRegistry(t, true), nil)
	node, nodes := nodeCertificate(t)
	mutual, mutualServer := serveTLS(t, newRegistry(t, true), nodes)
	pinned := &tls.Config{RootCAs: poolOf(openServer), MinVersion: tls.VersionTLS10}
	withCertificate := pinned.Clone()
	withCertificate.RootCAs.AddCert(mutualServer.Certificate())
	withCertificate.Certificates = []tls.Certificate{node}
	plain := serve(t, newRegistry(t, true))
	for name, test := range map[string]struct {
		host string
		tls  *tls.Config
		want string
	}{
		"pinned CA":                {open, pinned, ""},
		"client certificate":       {mutual, withCertificate, ""},
		"system roots":             {open, nil, "certificate"},
		"another CA":               {open, &tls.Config{RootCAs: x509.NewCertPool()}, "certificate"},
		"no client certificate":    {mutual, pinned, "certificate"},
		"a registry without TLS":   {plain, pinned, "HTTP response to HTTPS client"},
		"a certificate of another": {strings.Replace(open, "127.0.0.1", "localhost", 1), pinned, "not localhost"},
	} {
		c := tlsClient(t, Options{TLS: test.tls})
		l, image, _ := sealedLayout(t, "amd64", 1000)
		ref := Reference{Repository: test.host + "/modules/test", Tag: "v1"}
		err := c.Push(context.Background(), l, image, ref, nil)
		if err == nil {
			_, err = c.Resolve(context.Background(), ref, "amd64")
		}
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.want == "":
		case err == nil:
			t.Errorf("%s: accepted", name)
		case !strings.Contains(err.Error(), test.want) || fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Platform || fault.HintOf(err) == "":
			t.Errorf("%s: kind %v, area %v, hint %q: %v", name, fault.KindOf(err), fault.AreaOf(err), fault.HintOf(err), err)
		}
	}
}

// TestTLSForHosts speaks with two registries, each with its own CA, and shows the certificate to
// the one that it is for.
func TestTLSForHosts(t *testing.T) {
	start := func(seen *atomic.Int64) (string, *httptest.Server) {
		inner := newRegistry(t, true)
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			seen.Add(int64(len(r.TLS.PeerCertificates)))
			inner.ServeHTTP(w, r)
		}))
		server.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert}
		server.StartTLS()
		t.Cleanup(server.Close)
		return strings.TrimPrefix(server.URL, "https://"), server
	}
	node, _ := nodeCertificate(t)
	var seenOwn, seenOther atomic.Int64
	own, ownServer := start(&seenOwn)
	other, otherServer := start(&seenOther)
	platform := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: poolOf(ownServer), Certificates: []tls.Certificate{node}}
	elsewhere := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: poolOf(otherServer)}
	c := tlsClient(t, Options{TLS: platform, TLSFor: func(host string) *tls.Config {
		switch host {
		case own:
			return platform
		case other:
			return elsewhere
		}
		return nil
	}})
	push(t, c, own, 1000)
	push(t, c, other, 1000)
	if seenOwn.Load() == 0 || seenOther.Load() != 0 {
		t.Errorf("the platform saw %d certificates, the other registry %d", seenOwn.Load(), seenOther.Load())
	}
	if len(c.base.byTLS) != 2 {
		t.Errorf("%d ways to connect with two kinds of host", len(c.base.byTLS))
	}
	third, _ := serveTLS(t, newRegistry(t, true), nil)
	_, err := c.Resolve(t.Context(), Reference{Repository: third + "/x", Tag: "v1"}, "")
	if err == nil || !strings.Contains(err.Error(), "certificate") || fault.KindOf(err) != fault.Refuse {
		t.Errorf("a registry that the system doesn't know: %v", err)
	}
}

// TestWordsOfARegistry has a registry that refuses with words that should drive a terminal.
func TestWordsOfARegistry(t *testing.T) {
	message := "\x1b[2Jdenied\n\u202eby the platform" + strings.Repeat("x", 2000)
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusForbidden)
		_ = json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]any{{"code": "DENIED", "message": message, "detail": message}}})
	}))
	c := newClient(t, Options{})
	l, image, _ := sealedLayout(t, "amd64", 1000)
	_, resolved := c.Resolve(t.Context(), Reference{Repository: host + "/x", Tag: "v1"}, "")
	pushed := c.Push(t.Context(), l, image, Reference{Repository: host + "/x"}, nil)
	tagged := c.Tag(t.Context(), host+"/x", "v1", image.MediaType, image.Manifest)
	for doing, err := range map[string]error{"resolve": resolved, "push": pushed, "tag": tagged} {
		if err == nil {
			t.Errorf("%s: no error", doing)
			continue
		}
		text := err.Error()
		if strings.ContainsAny(text, "\x1b\n\u202e") || len(text) > 1000 || !strings.Contains(text, "response status code 403") {
			t.Errorf("%s: %d characters: %q", doing, len(text), text)
		}
		if doing != "push" && !strings.Contains(text, `denied: \x1b[2Jdenied; \x202eby`) {
			t.Errorf("%s leaves out the registry's words: %q", doing, text)
		}
	}
}

func TestPlainHTTPIsForLoopback(t *testing.T) {
	c := newClient(t, Options{})
	// 192.0.2.0/24 is for documentation (RFC 5737); nothing is sent there.
	_, err := c.Resolve(context.Background(), Reference{Repository: "192.0.2.1:5000/x", Tag: "v1"}, "")
	if err == nil || !strings.Contains(err.Error(), "not a loopback address") || fault.KindOf(err) != fault.Refuse {
		t.Errorf("error %v", err)
	}
}

// TestRedirects sends layers elsewhere: to another TLS server, which is fine, or into the clear.
func TestRedirects(t *testing.T) {
	var to string
	storage := make(map[string][]byte)
	inner := newRegistry(t, true)
	host, server := serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/sha256:") {
			http.Redirect(w, r, to+r.URL.Path, http.StatusTemporaryRedirect)
			return
		}
		inner.ServeHTTP(w, r)
	}), nil)
	serveBlob := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("the credentials went to another host")
		}
		_, _ = w.Write(storage[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]])
	})
	other, otherServer := serveTLS(t, serveBlob, nil)
	pool := poolOf(server)
	pool.AddCert(otherServer.Certificate())
	c := tlsClient(t, Options{TLS: &tls.Config{RootCAs: pool}, Credential: func(context.Context, string) (string, string, error) {
		return "user", "secret", nil
	}})
	ref, image, _ := push(t, c, host, 1000)
	l, _, _ := sealedLayout(t, "amd64", 1000)
	for _, d := range image.Layers {
		b, err := l.readBlob(d.Digest, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		storage[string(d.Digest)] = b
	}
	storage[string(digestOf(image.Config))] = image.Config
	to = "https://" + other
	checkPulled(t, c, ref, PullOptions{Sink: layer.Discard{}})
	to = "http://" + serve(t, serveBlob)
	if _, err := c.Resolve(context.Background(), ref, ""); err == nil || !strings.Contains(err.Error(), "from https to http") || fault.KindOf(err) != fault.Refuse {
		t.Errorf("a redirect to plain http: %v", err)
	}
}

// TestCredentials asks for a user and password, directly and by way of a token service.
func TestCredentials(t *testing.T) {
	inner := newRegistry(t, true)
	var host string
	for _, token := range []bool{false, true} {
		host = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			user, password, _ := r.BasicAuth()
			good := user == "operator" && password == "secret"
			switch {
			case r.URL.Path == "/token" && good:
				_ = json.NewEncoder(w).Encode(map[string]string{"token": "t0"})
			case token && r.Header.Get("Authorization") == "Bearer t0", !token && good:
				inner.ServeHTTP(w, r)
			case token:
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="x"`, host))
				w.WriteHeader(http.StatusUnauthorized)
			default:
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(http.StatusUnauthorized)
			}
		}))
		credential := func(password string) func(context.Context, string) (string, string, error) {
			return func(_ context.Context, asked string) (string, string, error) {
				if asked != host {
					t.Errorf("asked for the credentials for %s", asked)
				}
				return "operator", password, nil
			}
		}
		c := newClient(t, Options{Credential: credential("secret")})
		ref, _, _ := push(t, c, host, 1000)
		checkPulled(t, c, ref, PullOptions{Sink: layer.Discard{}})
		for name, o := range map[string]Options{"none": {}, "wrong": {Credential: credential("guess")}} {
			_, err := newClient(t, o).Resolve(context.Background(), ref, "")
			if fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Platform || !strings.Contains(fault.HintOf(err), "credentials") {
				t.Errorf("token %v, %s credentials: kind %v, hint %q: %v", token, name, fault.KindOf(err), fault.HintOf(err), err)
			}
			if err != nil && strings.Contains(err.Error(), "guess") {
				t.Errorf("the password is in the error: %v", err)
			}
		}
	}
}

func TestUnreachableRegistry(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	host := strings.TrimPrefix(server.URL, "http://")
	server.Close()
	c := newClient(t, Options{})
	_, err := c.Resolve(context.Background(), Reference{Repository: host + "/x", Tag: "v1"}, "")
	if fault.KindOf(err) != fault.Retry || fault.AreaOf(err) != fault.Platform || !strings.Contains(fault.HintOf(err), host) {
		t.Errorf("kind %v, hint %q: %v", fault.KindOf(err), fault.HintOf(err), err)
	}
}

func TestReferences(t *testing.T) {
	sum := "sha256:" + strings.Repeat("ab", 32)
	for text, want := range map[string]Reference{
		"reg.example:5000/a/b:v1":        {Repository: "reg.example:5000/a/b", Tag: "v1"},
		"reg.example/a@" + sum:           {Repository: "reg.example/a", Digest: digestFrom(sum)},
		"127.0.0.1:5000/a:v1.2-3@" + sum: {Repository: "127.0.0.1:5000/a", Tag: "v1.2-3", Digest: digestFrom(sum)},
		"localhost/x":                    {Repository: "localhost/x"},
	} {
		got, err := ParseReference(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "x", "/x", "reg/UPPER", "reg/x@sha256:ab", "reg/x@sha512:" + strings.Repeat("ab", 64), "reg/x:", "reg/x:a b", "reg/../x", "reg/x@" + strings.ToUpper(sum), "http://reg/x", "u:p@reg/x"} {
		if ref, err := ParseReference(text); fault.KindOf(err) != fault.Refuse {
			t.Errorf("%q is %+v, %v", text, ref, err)
		}
	}
}
