package nodehttp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
	"github.com/powernode/powernode-agent/internal/secret"
)

const token = "T0kenT0kenT0kenT0kenT0kenT0kenT0kenT0kenT0k"

func connect(t *testing.T, base string, o Options, cas ...*x509.Certificate) *Conn {
	t.Helper()
	c, err := New(&Material{PlatformURL: base, CAs: cas}, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// abort ends the connection after what has been written so far.
func abort(w http.ResponseWriter) {
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// expect is what a failed call must look like.
type expect struct {
	kind fault.Kind
	text string // in the error
	hint string // in the hint
}

func (e expect) check(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if fault.KindOf(err) != e.kind || fault.AreaOf(err) != fault.Platform {
		t.Errorf("kind %v, area %v, want %v and Platform: %v", fault.KindOf(err), fault.AreaOf(err), e.kind, err)
	}
	if !strings.Contains(err.Error(), e.text) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q, want one line with %q", err, e.text)
	}
	if hint := fault.HintOf(err); !strings.Contains(hint, e.hint) {
		t.Errorf("hint %q, want %q in it", hint, e.hint)
	}
	if strings.Contains(err.Error(), token) {
		t.Errorf("the error shows the token: %v", err)
	}
}

func TestDoAnswers(t *testing.T) {
	ca := pkitest.NewCA(t, "CA")
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		want    expect
	}{
		{"400", answer(400, `{"success":false,"error":"csr_pem is missing","code":"PARAMETER_MISSING"}`), expect{fault.Refuse, "400 PARAMETER_MISSING: csr_pem is missing", ""}},
		{"401", answer(401, `{"success":false,"error":"No active certificate","code":"UNAUTHORIZED"}`), expect{fault.Refuse, "401 UNAUTHORIZED: No active", "token"}},
		{"403", answer(403, `{"success":false,"error":"no","code":"FORBIDDEN"}`), expect{fault.Refuse, "403 FORBIDDEN", "introspect"}},
		{"404 of the platform", answer(404, `{"success":false,"error":"NodeModule not found","code":"NOT_FOUND"}`), expect{fault.Refuse, "NodeModule not found", "powernode node list"}},
		{"404 of a web server", answer(404, `<html>nope</html>`), expect{fault.Refuse, "404 Not Found", "not a proxy's page"}},
		{"409", answer(409, `{"success":false,"error":"already","code":"CONFLICT"}`), expect{fault.Refuse, "409 CONFLICT: already", ""}},
		{"a hint of the platform", answer(422, `{"success":false,"error":"no","code":"VALIDATION_ERROR","details":{"hint":"create the\n node `+token+` anew"}}`), expect{fault.Refuse, "422 VALIDATION_ERROR: no", "create the  node redacted anew"}},
		{"details of another shape", answer(422, `{"success":false,"error":"no","code":"VALIDATION_ERROR","details":["x"]}`), expect{fault.Refuse, "422 VALIDATION_ERROR: no", ""}},
		{"413", answer(413, `{"success":false,"error":"big","code":"TOO_LARGE"}`), expect{fault.Refuse, "413 TOO_LARGE", ""}},
		{"422 token", answer(422, `{"success":false,"error":"invalid or expired bootstrap token `+token+`","code":"TOKEN_REFUSED"}`), expect{fault.Refuse, "bootstrap token redacted", "powernode token create"}},
		{"429", answer(429, `{"success":false,"error":"slow down"}`), expect{fault.Retry, "429 Too Many Requests: slow down", "wait"}},
		{"500", answer(500, `{"success":false,"error":"Internal server error","code":"INTERNAL_ERROR"}`), expect{fault.Retry, "500 INTERNAL_ERROR", "log"}},
		{"502 of a proxy", answer(502, `<html>Bad gateway</html>`), expect{fault.Retry, "502 Bad Gateway", "log"}},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.example/x?t="+token, http.StatusTemporaryRedirect)
		}, expect{fault.Refuse, "redirect (307) to https://elsewhere.example,", "own address"}},
		{"not JSON", answer(200, "<html>\x1b[31mlogin\n"), expect{fault.Broken, `begins "<html> [31mlogin"`, "not a proxy's page"}},
		{"empty", answer(200, ""), expect{fault.Broken, "isn't a node_api answer", ""}},
		{"no data", answer(200, `{"success":true}`), expect{fault.Broken, "holds no data", ""}},
		{"null data", answer(200, `{"success":true,"data":null}`), expect{fault.Broken, "holds no data", ""}},
		{"no success", answer(200, `{"success":false,"error":"odd"}`), expect{fault.Broken, "odd", "log"}},
		{"other data", answer(200, `{"success":true,"data":{"n":"text"}}`), expect{fault.Broken, "isn't as agreed", ""}},
		{"two documents", answer(200, `{"success":true,"data":{"n":1}}{"success":true}`), expect{fault.Broken, "isn't a node_api answer", ""}},
		{"endless", func(w http.ResponseWriter, _ *http.Request) {
			for chunk := strings.Repeat("a", 1<<16); ; {
				if _, err := io.WriteString(w, chunk); err != nil {
					return
				}
			}
		}, expect{fault.Broken, "larger than 4194304 bytes", ""}},
		{"cut off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"success":true,`)
			abort(w)
		}, expect{fault.Retry, "broke before the answer was complete", "safe to repeat"}},
		{
			"no answer", func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) },
			expect{fault.Retry, "broke before the answer was complete", "safe to repeat"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := ca.Serve(ca.Web(), c.handler, nil)
			var into struct{ N int }
			err := connect(t, srv.URL, Options{}, ca.Cert).Do(t.Context(), Call{
				Doing: "try", Method: "POST", Path: "/x", Into: &into,
				Body: map[string]string{"token": token}, Secrets: []secret.Text{secret.New(token), {}},
			})
			c.want.check(t, err)
			if !strings.HasPrefix(err.Error(), "try at "+srv.URL+": ") {
				t.Errorf("the error doesn't begin with what was done: %v", err)
			}
		})
	}
}

func TestDoSucceeds(t *testing.T) {
	ca := pkitest.NewCA(t, "CA")
	node := ca.Issue(ca.Node("node-1"))
	var got atomic.Value
	srv := ca.Serve(ca.Web(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got.Store(fmt.Sprint(r.Method, r.URL.Path, " ", r.Header.Get("Accept"), r.Header.Get("Content-Type"),
			r.Header.Get("User-Agent"), string(body), r.TLS.PeerCertificates[0].Subject.CommonName, r.TLS.Version == tls.VersionTLS13))
		_, _ = io.WriteString(w, `{"success":true,"data":{"n":7},"meta":{"later":1}}`)
	}), nil)
	c, err := New(&Material{PlatformURL: srv.URL + "/", CAs: []*x509.Certificate{ca.Cert}, Certificate: node}, Options{UserAgent: "t/1"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var into struct{ N int }
	if err := c.Do(t.Context(), Call{Doing: "try", Method: "PUT", Path: "/a/b", Body: 5, Into: &into}); err != nil || into.N != 7 {
		t.Fatalf("n=%d, %v", into.N, err)
	}
	if want := "PUT/a/b application/jsonapplication/jsont/15node-1true"; got.Load() != want {
		t.Errorf("the request was %q, want %q", got.Load(), want)
	}
	if c.URL() != srv.URL {
		t.Errorf("URL %q, want %q", c.URL(), srv.URL)
	}
	if err := c.Do(t.Context(), Call{Doing: "try", Method: "GET", Path: "/"}); err != nil {
		t.Errorf("an answer that nobody wants to see: %v", err)
	}
}

func TestDoTLS(t *testing.T) {
	ca, other := pkitest.NewCA(t, "CA"), pkitest.NewCA(t, "Other CA")
	year := 365 * 24 * time.Hour
	var reached atomic.Int32
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reached.Add(1)
		_, _ = io.WriteString(w, `{"success":true}`)
	})
	web := func(alter func(*x509.Certificate)) *x509.Certificate {
		w := ca.Web()
		alter(w)
		return w
	}
	for _, c := range []struct {
		name  string
		by    *pkitest.CA
		tmpl  *x509.Certificate
		alter func(*tls.Config)
		now   time.Time
		host  string
		want  expect
	}{
		{name: "wrong CA", by: other, tmpl: other.Web(), want: expect{fault.Refuse, "(issuer CN=Other CA) isn't signed by the CA that this node trusts (CN=CA)", "CA certificate"}},
		{name: "expired", by: ca, tmpl: web(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(-2*year), time.Now().Add(-year) }), want: expect{fault.Retry, "the server's certificate (CN=platform) ended at", "renew the platform's certificate"}},
		{name: "not yet", by: ca, tmpl: web(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }), want: expect{fault.Retry, "before the server's certificate begins", "clock"}},
		{name: "clock 15 years back", by: ca, tmpl: ca.Web(), now: time.Now().Add(-15 * year), want: expect{fault.Retry, "this machine's clock says 20", "set this machine's clock"}},
		{name: "clock 15 years ahead", by: ca, tmpl: ca.Web(), now: time.Now().Add(15 * year), want: expect{fault.Retry, "ended at", "check this machine's clock"}},
		{name: "other name", by: ca, tmpl: web(func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = []string{"p.example"}, nil }), want: expect{fault.Refuse, "certificate is for p.example, not for 127.0.0.1", "one of the certificate's names"}},
		{name: "no name", by: ca, tmpl: web(func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, nil }), want: expect{fault.Refuse, "certificate is", ""}},
		{name: "a node's certificate", by: ca, tmpl: web(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), want: expect{fault.Refuse, "incompatible key usage", "CA certificate"}},
		{name: "TLS 1.2", by: ca, tmpl: ca.Web(), alter: func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }, want: expect{fault.Refuse, "doesn't speak TLS 1.3", "TLS 1.3"}},
		{name: "certificate demanded", by: ca, tmpl: ca.Web(), alter: func(c *tls.Config) { c.ClientAuth = tls.RequireAndVerifyClientCert }, want: expect{fault.Refuse, "refuses this node's certificate: tls: certificate required", "introspect"}},
		{name: "nothing listens", by: ca, tmpl: ca.Web(), host: closedPort(t), want: expect{fault.Retry, "nothing listens there", "network"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			reached.Store(0)
			base := c.by.Serve(c.tmpl, handler, c.alter).URL
			if c.host != "" {
				base = c.host
			}
			o := Options{}
			if !c.now.IsZero() {
				o.Now = func() time.Time { return c.now }
			}
			err := connect(t, base, o, ca.Cert).Do(t.Context(), Call{Doing: "try", Method: "POST", Path: "/x", Body: token})
			c.want.check(t, err)
			if reached.Load() != 0 {
				t.Error("the request reached the server")
			}
		})
	}
	t.Run("no TLS", func(t *testing.T) {
		srv := httptest.NewServer(handler)
		defer srv.Close()
		base := strings.Replace(srv.URL, "http:", "https:", 1)
		expect{fault.Refuse, "doesn't speak TLS", "port"}.check(t, connect(t, base, Options{}, ca.Cert).Do(t.Context(), Call{Doing: "try", Method: "GET"}))
	})
}

// closedPort returns the URL of a loopback port that nothing listens on, and nobody else comes to listen on while the test lasts.
func closedPort(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("https://127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
}

// TestNames hands over what the resolver would say, because a test asks no resolver.
func TestNames(t *testing.T) {
	for _, c := range []struct {
		err  net.DNSError
		want expect
	}{
		{net.DNSError{Err: "no such host", Name: "nowhere.invalid", IsNotFound: true}, expect{fault.Retry, `there is no host named "nowhere.invalid"`, "resolv.conf"}},
		{net.DNSError{Err: "server misbehaving", Name: "p.example", Server: "[::1]:53"}, expect{fault.Retry, `"p.example" can't be resolved (server misbehaving)`, "resolv.conf"}},
	} {
		f := &failure{conn: &Conn{base: "https://p.example"}, call: Call{Doing: "try"}, parent: t.Context(), ctx: t.Context()}
		c.want.check(t, f.transport(&url.Error{Op: "Get", URL: "u", Err: &net.OpError{Op: "dial", Err: &c.err}}))
	}
}

func TestNewRefuses(t *testing.T) {
	ca := pkitest.NewCA(t, "CA")
	if _, err := New(&Material{PlatformURL: "http://p.example", CAs: []*x509.Certificate{ca.Cert}}, Options{}); err == nil {
		t.Error("http was accepted")
	}
	if _, err := New(&Material{PlatformURL: "https://p.example"}, Options{}); err == nil || !strings.Contains(err.Error(), "no CA certificate") {
		t.Errorf("no CA: %v", err)
	}
}

func TestDoBoundsTime(t *testing.T) {
	ca := pkitest.NewCA(t, "CA")
	release := make(chan struct{})
	srv := ca.Serve(ca.Web(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/trickle": // always another byte, never the end
			for {
				if _, err := io.WriteString(w, " "); err != nil {
					return
				}
				_ = http.NewResponseController(w).Flush()
				select {
				case <-time.After(5 * time.Millisecond):
				case <-r.Context().Done():
					return
				}
			}
		case "/headers":
			_, _ = io.WriteString(w, " ")
			_ = http.NewResponseController(w).Flush()
		}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}), nil)
	t.Cleanup(func() { close(release) })
	get := func(ctx context.Context, path string, o Options) error {
		return connect(t, srv.URL, o, ca.Cert).Do(ctx, Call{Doing: "try", Method: "GET", Path: path})
	}
	quick := Options{Stall: 100 * time.Millisecond}
	expect{fault.Retry, "sent nothing for 100ms", "network"}.check(t, get(t.Context(), "/silent", quick))
	expect{fault.Retry, "sent nothing for 100ms", "network"}.check(t, get(t.Context(), "/headers", quick))
	expect{fault.Retry, "no complete answer within 300ms", "network"}.check(t, get(t.Context(), "/trickle", Options{Timeout: 300 * time.Millisecond}))

	waiting := connect(t, srv.URL, quick, ca.Cert).Do(t.Context(), Call{Doing: "try", Method: "GET", Path: "/silent", Wait: 50 * time.Millisecond})
	expect{fault.Retry, "sent nothing for 150ms", "network"}.check(t, waiting)

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	expect{fault.Retry, "in the time that was allowed", ""}.check(t, get(ctx, "/silent", Options{}))

	ctx, stop := context.WithCancelCause(t.Context())
	why := errors.New("the person pressed Ctrl-C")
	stop(why)
	if err := get(ctx, "/silent", Options{}); !errors.Is(err, why) {
		t.Errorf("a cancelled call returned %v", err)
	}
}

func TestProxyOnlyWhenGiven(t *testing.T) {
	ca := pkitest.NewCA(t, "CA")
	srv := ca.Serve(ca.Web(), answer(200, `{"success":true}`), nil)
	var asked atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Method != http.MethodConnect {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		up, err := net.Dial("tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		// The connection is taken over before the answer, so that the server can't write into the
		// tunnel, and what it has read ahead goes along.
		down, ahead, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(down, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(up, ahead); up.Close() }()
		_, _ = io.Copy(down, up)
		down.Close()
	}))
	defer proxy.Close()
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"} {
		t.Setenv(name, proxy.URL)
	}
	t.Setenv("NO_PROXY", "")
	call := Call{Doing: "try", Method: "GET", Path: "/"}
	if err := connect(t, srv.URL, Options{}, ca.Cert).Do(t.Context(), call); err != nil || asked.Load() != 0 {
		t.Fatalf("without a proxy: %v, the proxy was asked %d times", err, asked.Load())
	}
	u, _ := url.Parse(proxy.URL)
	if err := connect(t, srv.URL, Options{Proxy: u}, ca.Cert).Do(t.Context(), call); err != nil || asked.Load() != 1 {
		t.Fatalf("with a proxy: %v, the proxy was asked %d times", err, asked.Load())
	}
	u, _ = url.Parse("http://user:hunter2@" + strings.TrimPrefix(closedPort(t), "https://"))
	err := connect(t, srv.URL, Options{Proxy: u}, ca.Cert).Do(t.Context(), call)
	expect{fault.Retry, "nothing listens there through the proxy", ""}.check(t, err)
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error shows the proxy's password: %v", err)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 23, 4, 0, 0, 0, time.UTC)
	for h, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, "-1": 0, "x": 0, "99999": maxRetryAfter, "99999999999": maxRetryAfter, "999999999999999999999999": maxRetryAfter,
		"Mon, 23 Nov 2026 04:00:30 GMT": 30 * time.Second, "Mon, 23 Nov 2026 03:00:30 GMT": 0,
		"Tue, 24 Nov 2026 04:00:30 GMT": maxRetryAfter,
	} {
		if got := parseRetryAfter(h, now); got != want {
			t.Errorf("%q: %v, want %v", h, got, want)
		}
	}
	err := fmt.Errorf("outer: %w", &StatusError{Status: 429, RetryAfter: time.Second, Code: "X"})
	if RetryAfter(err) != time.Second || StatusOf(err) != 429 || CodeOf(err) != "X" {
		t.Error("a wrapped StatusError isn't found")
	}
	if err := io.EOF; RetryAfter(err) != 0 || StatusOf(err) != 0 || CodeOf(err) != "" {
		t.Error("an error without a status has one")
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{"success":true,"data":{"modules":[]}}`, `{"success":false,"error":"x","code":"Y"}`, `<html>`, `{"data":{"data":1}}`} {
		f.Add(200, s)
		f.Add(422, s)
	}
	conn := &Conn{base: "https://p.example", options: Options{Now: time.Now}}
	f.Fuzz(func(t *testing.T, status int, body string) {
		var into nodeapi.ModuleList
		fail := &failure{conn: conn, call: Call{Doing: "try", Into: &into}, parent: t.Context(), ctx: t.Context()}
		err := fail.decode(&http.Response{StatusCode: status, Header: http.Header{}}, []byte(body))
		if err == nil && (status < 200 || status > 299 || !json.Valid([]byte(body))) {
			t.Fatalf("%d %q was taken for a success", status, body)
		}
		if err != nil && (strings.ContainsAny(err.Error(), "\n\r\x1b") || len(err.Error()) > 2000) {
			t.Fatalf("%d %q gives the message %q", status, body, err)
		}
	})
}
