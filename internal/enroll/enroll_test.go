package enroll

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
	"github.com/powernode/powernode-agent/internal/secret"
)

const year = 365 * 24 * time.Hour

func TestEnroll(t *testing.T) {
	p := newPlatform(t)
	dir := filepath.Join(t.TempDir(), "state", "pki")
	c, was, err := Ensure(t.Context(), p.options(dir))
	if err != nil || was != None {
		t.Fatalf("%v, %v", was, err)
	}
	if c.InstanceID != instance || c.PlatformURL != p.URL || c.CertificateID != "c-1" || len(c.Intermediates) != 0 || len(c.CAs) != 1 {
		t.Errorf("credentials %+v", c)
	}
	if r := p.requests[0]; r.InstanceID != instance || r.AgentVersion != "v1" || r.Architecture != "amd64" || r.BootstrapToken != token {
		t.Errorf("request %+v", r)
	}
	for name, mode := range map[string]os.FileMode{".": 0o700, unitFile: 0o600} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want mode %o", name, info.Mode(), err, mode)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, pendingFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the waiting key is still there: %v", err)
	}

	// A restart needs neither the identity nor the platform.
	o := p.options(dir)
	o.Discover = func(context.Context) (Bootstrap, error) {
		t.Error("usable credentials, and yet the identity was looked for")
		return Bootstrap{}, io.EOF
	}
	again, was, err := Ensure(t.Context(), o)
	if err != nil || was != Valid || !again.Leaf.Equal(c.Leaf) || len(p.requests) != 1 {
		t.Errorf("again: %v, %v, %d requests", was, err, len(p.requests))
	}
	loaded, err := Load(dir, time.Now())
	if err != nil || !loaded.Leaf.Equal(c.Leaf) {
		t.Fatalf("load: %v", err)
	}
	m, err := loaded.Material()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := nodehttp.New(m, nodehttp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var who string
	if err := conn.Do(t.Context(), nodehttp.Call{Doing: "ask", Method: "GET", Path: "/who", Into: &who}); err != nil || who != instance {
		t.Errorf("with the certificate the platform sees %q, %v", who, err)
	}
}

func TestLostReplies(t *testing.T) {
	p := newPlatform(t)
	p.lose = 10
	dir := t.TempDir()
	o := p.options(dir)
	o.Backoff.Tries = 20
	told := 0
	o.Notify = func(err error, _ time.Duration) {
		if told++; fault.KindOf(err) != fault.Retry || !strings.Contains(err.Error(), "broke before the answer") {
			t.Errorf("told of %v", err)
		}
	}
	c, _, err := Ensure(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.requests) != 11 || told != 10 || len(p.grants) != 1 {
		t.Errorf("%d requests, told %d times, %d certificates", len(p.requests), told, len(p.grants))
	}
	for _, r := range p.requests {
		if r.CSRPEM != p.requests[0].CSRPEM {
			t.Error("another key asked")
		}
	}
	if !strings.Contains(p.grants[token].CertPEM, string(pkitest.EncodePEM(c.Leaf))) {
		t.Error("the certificate isn't the one that was issued first")
	}
}

// TestLostReplyThenRestart has every process end after its only reply was lost.
func TestLostReplyThenRestart(t *testing.T) {
	p := newPlatform(t)
	p.lose = 3
	dir := t.TempDir()
	for i := range 3 {
		_, was, err := Ensure(t.Context(), p.options(dir))
		if want := []Situation{None, KeyOnly, KeyOnly}[i]; err == nil || was != want || fault.KindOf(err) != fault.Retry {
			t.Fatalf("start %d: %v, %v; want %v and a failure", i, was, err, want)
		}
	}
	if _, was, err := Ensure(t.Context(), p.options(dir)); err != nil || was != KeyOnly || len(p.grants) != 1 {
		t.Errorf("the last start: %v, %v, %d certificates", was, err, len(p.grants))
	}
}

func TestPlatformDownForAWhile(t *testing.T) {
	p := newPlatform(t)
	p.fail = 4
	o := p.options(t.TempDir())
	_, _, err := Ensure(t.Context(), o)
	if fault.KindOf(err) != fault.Retry || !strings.Contains(err.Error(), "503 INTERNAL_ERROR: down for a moment") {
		t.Errorf("one attempt: %v", err)
	}
	o.Backoff.Tries = 9
	if _, _, err := Ensure(t.Context(), o); err != nil || len(p.requests) != 5 {
		t.Errorf("several attempts: %v, %d requests", err, len(p.requests))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o.Dir, o.Backoff.Tries = t.TempDir(), 0
	if _, _, err := Ensure(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// refusal is what a failed enrollment must look like.
type refusal struct {
	kind fault.Kind
	text string
	hint string
}

func (want refusal) check(t *testing.T, err error) {
	t.Helper()
	if err == nil || fault.KindOf(err) != want.kind || !strings.Contains(err.Error(), want.text) || !strings.Contains(fault.HintOf(err), want.hint) {
		t.Errorf("got %v (%v, hint %q)\nwant %q (%v, hint %q)", err, fault.KindOf(err), fault.HintOf(err), want.text, want.kind, want.hint)
	}
	if err != nil && (strings.Contains(err.Error(), token) || strings.Contains(err.Error(), "\n")) {
		t.Errorf("the error shows the token, or has several lines: %v", err)
	}
}

func TestUsedToken(t *testing.T) {
	p := newPlatform(t)
	if _, _, err := Ensure(t.Context(), p.options(t.TempDir())); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	_, _, err := Ensure(t.Context(), p.options(dir))
	refusal{fault.Refuse, "422 TOKEN_REFUSED: the token isn't good", "used by another key: make a token with `powernode token create`"}.check(t, err)
	if s, err := Inspect(dir, Wish{}, time.Now()); err != nil || s.Situation != KeyOnly || !s.Pending {
		t.Errorf("after the refusal: %+v, %v", s, err)
	}
	// The same waiting key is good with another token.
	o := p.options(dir)
	o.Discover = func(context.Context) (Bootstrap, error) {
		b := p.bootstrap()
		b.Token = secret.New(token + "-second")
		return b, nil
	}
	if _, _, err := Ensure(t.Context(), o); err != nil {
		t.Error(err)
	}
}

// TestOldPlatformsRefusal is the existing platform's answer, which has no code of its own.
func TestOldPlatformsRefusal(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		token  bool
	}{
		{422, `{"success":false,"error":"invalid or expired bootstrap token"}`, true},
		{401, `{"success":false,"error":"bootstrap token required","code":"UNAUTHORIZED"}`, true},
		{422, `{"success":false,"error":"intended instance not found"}`, false},
		{422, `{"success":false,"error":"CSR/CA failure: no"}`, false},
	} {
		ca := pkitest.NewCA(t, "CA")
		srv := ca.Serve(ca.Web(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
		}), nil)
		p := &platform{Server: srv, ca: ca}
		_, _, err := Ensure(t.Context(), p.options(t.TempDir()))
		if fault.KindOf(err) != fault.Refuse || strings.Contains(fault.HintOf(err), "powernode token create") != c.token {
			t.Errorf("%d %s: %v (hint %q)", c.status, c.body, err, fault.HintOf(err))
		}
	}
}

// TestNothingLeaves has peers that must not see the token.
func TestNothingLeaves(t *testing.T) {
	p := newPlatform(t)
	other := pkitest.NewCA(t, "Other CA")
	var reached atomic.Int32
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if strings.Contains(string(b), token) {
			reached.Add(1)
		}
		w.WriteHeader(http.StatusInternalServerError)
	})
	plain := httptest.NewServer(h)
	defer plain.Close()
	expired := p.ca.Web()
	expired.NotBefore, expired.NotAfter = time.Now().Add(-2*year), time.Now().Add(-year)
	back, ahead := time.Now().Add(-15*year), time.Now().Add(15*year)
	for _, c := range []struct {
		name, url string
		ca        []byte
		now       time.Time
		want      refusal
	}{
		{"http", plain.URL, p.ca.PEM(), time.Time{}, refusal{fault.Refuse, "http sends the token in clear", "https://"}},
		{"wrong CA", other.Serve(other.Web(), h, nil).URL, p.ca.PEM(), time.Time{}, refusal{fault.Refuse, "isn't signed by the CA that this node trusts (CN=Powernode CA)", "give the node the CA certificate of this platform"}},
		{"no CA", p.URL, nil, time.Time{}, refusal{fault.Refuse, "CA certificate: no PEM certificate", "PEM file"}},
		{"expired server", p.ca.Serve(expired, h, nil).URL, p.ca.PEM(), time.Time{}, refusal{fault.Retry, "the server's certificate (CN=platform) ended at", "renew the platform's certificate"}},
		{"clock back", p.ca.Serve(p.ca.Web(), h, nil).URL, p.ca.PEM(), back, refusal{fault.Retry, "before the server's certificate begins", "set this machine's clock"}},
		{"clock ahead", p.ca.Serve(p.ca.Web(), h, nil).URL, p.ca.PEM(), ahead, refusal{fault.Retry, "and this machine's clock says", "check this machine's clock"}},
		{"TLS 1.2", p.ca.Serve(p.ca.Web(), h, func(c *tls.Config) { c.MinVersion, c.MaxVersion = 0, tls.VersionTLS12 }).URL, p.ca.PEM(), time.Time{}, refusal{fault.Refuse, "doesn't speak TLS 1.3", "TLS 1.3"}},
		{"redirect", p.ca.Serve(p.ca.Web(), http.RedirectHandler(plain.URL, http.StatusPermanentRedirect), nil).URL, p.ca.PEM(), time.Time{}, refusal{fault.Refuse, "redirect (308)", "own address"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			reached.Store(0)
			dir := t.TempDir()
			o := p.options(dir)
			o.Discover = func(context.Context) (Bootstrap, error) {
				b := p.bootstrap()
				b.PlatformURL, b.CAPEM = c.url, c.ca
				return b, nil
			}
			if !c.now.IsZero() {
				o.HTTP.Now = func() time.Time { return c.now }
			}
			_, _, err := Ensure(t.Context(), o)
			c.want.check(t, err)
			if reached.Load() != 0 {
				t.Error("the token left the machine")
			}
			if _, err := os.Stat(filepath.Join(dir, unitFile)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("credentials after a failure: %v", err)
			}
		})
	}
}

// TestAnswersRefused has a platform that issues what it shouldn't, to a node that has credentials
// which it wants to replace.
func TestAnswersRefused(t *testing.T) {
	foreign := pkitest.NewCA(t, "Powernode CA") // same name, other key
	for _, c := range []struct {
		name     string
		template func(*x509.Certificate)
		answer   func(*nodeapi.EnrollResponse)
		issuer   *pkitest.CA
		text     string
	}{
		{name: "no certificate", answer: func(a *nodeapi.EnrollResponse) { a.CertPEM = "" }, text: "its certificate: it isn't a PEM certificate"},
		{name: "text", answer: func(a *nodeapi.EnrollResponse) { a.CertPEM = "not a cert" }, text: "it isn't a PEM certificate"},
		{name: "key for a certificate", answer: func(a *nodeapi.EnrollResponse) {
			a.CertPEM = strings.ReplaceAll(a.CertPEM, "CERTIFICATE", "PRIVATE KEY")
		}, text: `type "PRIVATE KEY"`},
		{name: "damaged", answer: func(a *nodeapi.EnrollResponse) { a.CertPEM = strings.Replace(a.CertPEM, "MI", "AA", 1) }, text: "doesn't parse"},
		{name: "many", answer: func(a *nodeapi.EnrollResponse) { a.CertPEM = strings.Repeat(a.CertPEM, 9) }, text: "more than 8"},
		{name: "damaged chain", answer: func(a *nodeapi.EnrollResponse) { a.CAChainPEM = "x" }, text: "its CA chain: it isn't"},
		{name: "another key", answer: func(a *nodeapi.EnrollResponse) {
			a.CertPEM = string(pkitest.EncodePEM(foreign.Issue(foreign.Node(instance)).Leaf))
		}, text: "isn't for this node's key"},
		{name: "another CA", issuer: foreign, text: "doesn't lead to the CA that this node trusts"},
		{name: "another CA that sends itself along", issuer: foreign, answer: func(a *nodeapi.EnrollResponse) { a.CAChainPEM = string(foreign.PEM()) }, text: "doesn't lead to the CA that this node trusts"},
		{name: "server's certificate", template: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, text: "doesn't lead to the CA"},
		{name: "a CA", template: func(c *x509.Certificate) { c.IsCA = true }, text: "is a CA's"},
		{name: "other subject", template: func(c *x509.Certificate) { c.Subject.CommonName = "root" }, text: `the certificate is for "root", the answer for instance ` + instance},
		{name: "other instance", template: func(c *x509.Certificate) { c.Subject.CommonName = "other-7" }, answer: func(a *nodeapi.EnrollResponse) { a.InstanceID = "other-7" }, text: "it is for instance other-7, this node is " + instance},
		{name: "odd instance", answer: func(a *nodeapi.EnrollResponse) { a.InstanceID = "../../x" }, text: `"../../x" isn't an instance ID`},
		{name: "no instance", answer: func(a *nodeapi.EnrollResponse) { a.InstanceID = "" }, text: "isn't an instance ID"},
		{name: "already ended", template: func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(-2*year), time.Now().Add(-year) }, text: "the certificate ended at"},
		{name: "for a hundred years", template: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(100 * year) }, text: "the certificate is valid from"},
		{name: "backwards", template: func(c *x509.Certificate) { c.NotBefore = c.NotAfter.Add(time.Hour) }, text: "the certificate is valid from"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlatform(t)
			dir := t.TempDir()
			old := expire(t, p, dir)
			before, _ := os.ReadFile(filepath.Join(dir, unitFile))
			p.template, p.answer = c.template, c.answer
			if c.issuer != nil {
				p.issuer = c.issuer
			}
			o := p.options(dir)
			o.HTTP.Now = func() time.Time { return old.Leaf.NotAfter.Add(time.Second) }
			o.Backoff.Tries = 3
			o.Discover = func(context.Context) (Bootstrap, error) {
				b := p.bootstrap()
				b.Token = secret.New(token + "-second")
				return b, nil
			}
			n := len(p.requests)
			_, was, err := Ensure(t.Context(), o)
			refusal{fault.Broken, c.text, "nothing was changed on this node"}.check(t, err)
			if was != Expired || len(p.requests) != n+1 {
				t.Errorf("was %v, %d requests", was, len(p.requests)-n)
			}
			if after, err := os.ReadFile(filepath.Join(dir, unitFile)); err != nil || !bytes.Equal(before, after) {
				t.Errorf("the credentials changed: %v", err)
			}
			// And it isn't the end: the same key gets its certificate when the platform is mended.
			p.template, p.answer, p.issuer = nil, nil, p.ca
			clear(p.grants)
			if _, _, err := Ensure(t.Context(), o); err != nil {
				t.Errorf("after the platform was mended: %v", err)
			}
		})
	}
}

// expire enrolls a node in dir with a certificate that lasts for ten minutes.
func expire(t *testing.T, p *platform, dir string) *Credentials {
	t.Helper()
	p.template = func(c *x509.Certificate) { c.NotAfter = time.Now().Add(10 * time.Minute) }
	c, _, err := Ensure(t.Context(), p.options(dir))
	if err != nil {
		t.Fatal(err)
	}
	p.template = nil
	return c
}

func TestEndlessAnswer(t *testing.T) {
	ca := pkitest.NewCA(t, "CA")
	srv := ca.Serve(ca.Web(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for chunk := bytes.Repeat([]byte("a"), 1<<16); ; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}), nil)
	p := &platform{Server: srv, ca: ca}
	_, _, err := Ensure(t.Context(), p.options(t.TempDir()))
	refusal{fault.Broken, "larger than 4194304 bytes", "not a proxy's page"}.check(t, err)
}

func TestIntermediateCA(t *testing.T) {
	p := newPlatform(t)
	p.issuer = p.ca.Intermediate("Node CA")
	dir := t.TempDir()
	if _, _, err := Ensure(t.Context(), p.options(dir)); err != nil {
		t.Fatal(err)
	}
	c, err := Load(dir, time.Now())
	if err != nil || len(c.Intermediates) != 1 || len(c.CAs) != 1 {
		t.Fatalf("%v: %d intermediates, %d CAs", err, len(c.Intermediates), len(c.CAs))
	}
	// The server knows the root alone, so the intermediate must come from the node.
	m, _ := c.Material()
	conn, err := nodehttp.New(m, nodehttp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Do(t.Context(), nodehttp.Call{Doing: "ask", Method: "GET", Path: "/who"}); err != nil {
		t.Error(err)
	}
}

// TestTokenNamesInstance is a node that knows only platform, CA and token.
func TestTokenNamesInstance(t *testing.T) {
	p := newPlatform(t)
	o := p.options(t.TempDir())
	o.Discover = func(context.Context) (Bootstrap, error) {
		b := p.bootstrap()
		b.InstanceID, b.PlatformURL = "", strings.ToUpper(p.URL[:5])+p.URL[5:]+"/"
		return b, nil
	}
	c, _, err := Ensure(t.Context(), o)
	if err != nil || c.InstanceID != instance || c.PlatformURL != p.URL {
		t.Errorf("%v, %v", c, err)
	}
}

func TestNoToken(t *testing.T) {
	p := newPlatform(t)
	o := p.options(t.TempDir())
	if _, err := Load(o.Dir, time.Now()); fault.AreaOf(err) != fault.Input {
		t.Errorf("without credentials: %v, area %v", err, fault.AreaOf(err))
	}
	o.Discover = func(context.Context) (Bootstrap, error) { b := p.bootstrap(); b.Token = secret.Text{}; return b, nil }
	want := refusal{fault.Refuse, "enroll this node: this node isn't enrolled, and there is no token", "powernode token create"}
	_, _, err := Ensure(t.Context(), o)
	want.check(t, err)
	o.Discover = nil
	_, _, err = Ensure(t.Context(), o)
	want.check(t, err)
	o.Discover = func(context.Context) (Bootstrap, error) {
		return Bootstrap{}, fault.New(fault.Refuse, fault.Input, "write it", "no platform URL")
	}
	_, _, err = Ensure(t.Context(), o)
	refusal{fault.Refuse, "this node isn't enrolled: no platform URL", "write it"}.check(t, err)
	if _, err := os.Stat(filepath.Join(o.Dir, pendingFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a key was made for nothing: %v", err)
	}
	empty := t.TempDir()
	o.Dir = filepath.Join(empty, "state", "pki")
	if _, _, err = Ensure(t.Context(), o); fault.AreaOf(err) != fault.Input {
		t.Errorf("without a directory: %v", err)
	}
	if left, err := os.ReadDir(empty); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestSeveralAtOnce(t *testing.T) {
	p := newPlatform(t)
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			if _, _, err := Ensure(t.Context(), p.options(dir)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(p.requests) != 1 {
		t.Errorf("%d requests", len(p.requests))
	}
}

// TestNothingSecretShows collects everything that an enrollment says.
func TestNothingSecretShows(t *testing.T) {
	p := newPlatform(t)
	p.lose, p.fail = 1, 1
	p.answer = func(a *nodeapi.EnrollResponse) { a.CertificateID = token } // an echo, even
	var out bytes.Buffer
	o := p.options(t.TempDir())
	o.Backoff.Tries = 5
	o.Log = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	o.Notify = func(err error, _ time.Duration) { fmt.Fprintln(&out, err) }
	c, _, err := Ensure(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&out, "%v %+v %#v %s", c, c, c, c)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "c", c, "b", p.bootstrap(), "o", o.Wish)
	fmt.Fprintf(&out, "%+v %#v", p.bootstrap(), p.bootstrap())
	key := string(c.key.Signer.(ed25519.PrivateKey).Seed())
	for _, s := range []string{token, key, fmt.Sprintf("%x", key), fmt.Sprintf("%v", []byte(key)), "PRIVATE KEY"} {
		if strings.Contains(out.String(), s) {
			t.Errorf("%.20q shows in:\n%s", s, out.String())
		}
	}
	if !strings.Contains(out.String(), instance) {
		t.Errorf("nothing shows at all:\n%s", out.String())
	}
}

func TestKeyForms(t *testing.T) {
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	text, err := encodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := parseKey(text); err != nil || !got.Equal(key) {
		t.Errorf("round trip: %v", err)
	}
	_, csr, err := certificateRequest(key, "")
	if err != nil || !strings.Contains(csr, "BEGIN CERTIFICATE REQUEST") {
		t.Errorf("%s, %v", csr, err)
	}
	for _, bad := range []string{"", "x", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", strings.ReplaceAll(string(text), "PRIVATE", "PUBLIC")} {
		if _, err := parseKey([]byte(bad)); err == nil {
			t.Errorf("%q was read as a key", bad)
		}
	}
	if ownKey(&x509.Certificate{PublicKey: "x"}, key) || !ownKey(&x509.Certificate{PublicKey: key.Public().(ed25519.PublicKey)}, key) {
		t.Error("ownKey")
	}
}
