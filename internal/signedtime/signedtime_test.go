package signedtime

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
)

// about reports whether two times are nearly the same, which on a busy machine is a minute.
func about(a, b time.Time) bool { return a.Sub(b).Abs() < time.Minute }

func TestAsk(t *testing.T) {
	ca := newAuthority(t, "CA", nil, nil)
	p := newPlatform(t, ca, nil)
	before := sincePowerOn()
	r, err := Ask(t.Context(), p.material(ca), nodehttp.Options{Now: func() time.Time { return time.Unix(0, 0) }})
	after := sincePowerOn()
	if err != nil || !about(r.Time, time.Now()) {
		t.Fatalf("%+v, %v", r, err)
	}
	if r.At < before || r.At > after || r.Within < 0 || r.Within > after-before {
		t.Errorf("%v give or take %v, asked between %v and %v", r.At, r.Within, before, after)
	}
	if got := r.Now(r.At + time.Hour); !got.Equal(r.Time.Add(time.Hour)) {
		t.Errorf("an hour later: %s", got)
	}
}

// TestAskShowsNoCertificate: the node's own may have ended, which would end the handshake.
func TestAskShowsNoCertificate(t *testing.T) {
	ca := newAuthority(t, "CA", nil, nil)
	p := newPlatform(t, ca, nil)
	p.TLS.ClientAuth = tls.RequestClientCert
	m := p.material(ca)
	m.Certificate = &p.TLS.Certificates[0] // any that isn't a client's
	p.TLS.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) > 0 {
			return errors.New("a certificate was shown")
		}
		return nil
	}
	if _, err := Ask(t.Context(), m, nodehttp.Options{}); err != nil {
		t.Fatal(err)
	}
}

// TestAskRefuses has a platform, or whoever is in its place, lie.
func TestAskRefuses(t *testing.T) {
	ca, other := newAuthority(t, "CA", nil, nil), newAuthority(t, "Other CA", nil, nil)
	old := respond(t, ca, strings.Repeat("0", 64), time.Now().Add(-time.Hour))
	status := func(code int, body string) func(http.ResponseWriter, *nodeapi.TimeResponse) bool {
		return func(w http.ResponseWriter, _ *nodeapi.TimeResponse) bool {
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
			return false
		}
	}
	change := func(f func(*nodeapi.TimeResponse)) func(http.ResponseWriter, *nodeapi.TimeResponse) bool {
		return func(_ http.ResponseWriter, a *nodeapi.TimeResponse) bool { f(a); return true }
	}
	for _, c := range []struct {
		name  string
		spoil func(http.ResponseWriter, *nodeapi.TimeResponse) bool
		kind  fault.Kind
		is    error
		want  string
	}{
		{"another question's answer", change(func(a *nodeapi.TimeResponse) { *a = old }), fault.Refuse, nil, "nonce isn't ours"},
		{"another question's answer with our nonce", change(func(a *nodeapi.TimeResponse) { n := a.Nonce; *a = old; a.Nonce = n }), fault.Refuse, nil, "doesn't verify"},
		{"another time", change(func(a *nodeapi.TimeResponse) { a.ServerTime = old.ServerTime }), fault.Refuse, nil, "doesn't verify"},
		{"another CA bundle", change(func(a *nodeapi.TimeResponse) { a.CABundleSHA256 = strings.Repeat("1", 64) }), fault.Refuse, nil, "doesn't verify"},
		{"another key", change(func(a *nodeapi.TimeResponse) {
			a.Signature = other.sign(t, nodeapi.TimeMessage(a.Nonce, a.ServerTime, a.CABundleSHA256))
		}), fault.Refuse, nil, "doesn't verify"},
		{"another authority", change(func(a *nodeapi.TimeResponse) { *a = respond(t, other, a.Nonce, time.Now()) }), fault.Refuse, nil, "isn't vouched for by the CA that this node trusts"},
		{"another authority, followed by ours", change(func(a *nodeapi.TimeResponse) { *a = respond(t, other, a.Nonce, time.Now(), ca.cert) }), fault.Refuse, nil, "isn't vouched for"},
		{"no signature", change(func(a *nodeapi.TimeResponse) { a.Signature = nil }), fault.Refuse, nil, "signature has 0 bytes"},
		{"a huge signature", change(func(a *nodeapi.TimeResponse) { a.Signature = make([]byte, 1<<20) }), fault.Refuse, nil, "signature has 1048576 bytes"},
		{"huge signers", change(func(a *nodeapi.TimeResponse) { a.SignerPEM = strings.Repeat(a.SignerPEM, 1000) }), fault.Refuse, nil, "more than the 65536"},
		{"many signers", change(func(a *nodeapi.TimeResponse) { a.SignerPEM = strings.Repeat(a.SignerPEM, 9) }), fault.Refuse, nil, "comes with 9 certificates"},
		{"no signer", change(func(a *nodeapi.TimeResponse) { a.SignerPEM = "" }), fault.Refuse, nil, "no PEM certificate"},
		{"an endless answer", func(w http.ResponseWriter, _ *nodeapi.TimeResponse) bool {
			for chunk := strings.Repeat("a", 1<<16); ; {
				if _, err := io.WriteString(w, chunk); err != nil {
					return false
				}
			}
		}, fault.Broken, nil, "larger than"},
		{"no signed time", status(404, `{"success":false,"error":"no","code":"NOT_FOUND"}`), fault.Refuse, ErrUnsigned, "this platform signs no time"},
		{"no such page", status(404, `<html>`), fault.Refuse, ErrUnsigned, "this platform signs no time"},
		{"by another word", status(400, `{"success":false,"error":"no","code":"NOT_FOUND"}`), fault.Refuse, ErrUnsigned, "this platform signs no time"},
		{"failing", status(500, `{"success":false,"error":"no"}`), fault.Retry, nil, "500"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlatform(t, ca, nil)
			p.spoil = c.spoil
			_, err := Ask(t.Context(), p.material(ca), nodehttp.Options{})
			if err == nil || !strings.Contains(err.Error(), c.want) || fault.KindOf(err) != c.kind || fault.AreaOf(err) != fault.Platform {
				t.Errorf("%v %v, want %q", fault.KindOf(err), err, c.want)
			}
			if c.is != nil && (!errors.Is(err, c.is) || !strings.Contains(fault.HintOf(err), "clock=local")) {
				t.Errorf("%v; %s", err, fault.HintOf(err))
			}
		})
	}
	t.Run("a server of another authority", func(t *testing.T) {
		p := newPlatform(t, other, nil)
		p.ca = ca
		if _, err := Ask(t.Context(), p.material(ca), nodehttp.Options{}); err == nil || p.asked.Load() != 0 {
			t.Errorf("%v, asked %d times", err, p.asked.Load())
		}
	})
	t.Run("nobody", func(t *testing.T) {
		p := newPlatform(t, ca, nil)
		p.Close()
		if _, err := Ask(t.Context(), p.material(ca), nodehttp.Options{}); fault.KindOf(err) != fault.Retry {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := Ask(ctx, p.material(ca), nodehttp.Options{}); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// TestJudgeSigner: who may sign.
func TestJudgeSigner(t *testing.T) {
	nonce, now := strings.Repeat("ab", 32), time.Now()
	ca, other := newAuthority(t, "CA", nil, nil), newAuthority(t, "Other CA", nil, nil)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ed := newAuthorityOf(t, "Ed CA", edKey, nil, nil)
	next := newAuthority(t, "Next CA", nil, nil)
	cross := next.vouch(t, ca)
	short := func(from, until time.Duration) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(from), now.Add(until) }
	}
	ended, later := newAuthority(t, "Ended CA", nil, short(-2*year, -year)), newAuthority(t, "Later CA", nil, short(year, 2*year))
	endedNext := newAuthority(t, "Next CA", ended, nil)
	web := newAuthority(t, "platform", ca, func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	crl := newAuthority(t, "CRL signer", ca, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })
	for _, c := range []struct {
		name   string
		signer *authority
		also   []*x509.Certificate
		trust  []*authority
		at     time.Time
		want   string // "" for success
	}{
		{"the pinned one", ca, nil, []*authority{ca}, now, ""},
		{"one of several", ca, nil, []*authority{other, ca}, now, ""},
		{"Ed25519", ed, nil, []*authority{ed}, now, ""},
		{"the next, with its cross certificate", next, []*x509.Certificate{cross}, []*authority{ca}, now, ""},
		{"the next, without", next, nil, []*authority{ca}, now, "isn't vouched for"},
		{"the next, with that of another", next, []*x509.Certificate{next.vouch(t, other)}, []*authority{ca}, now, "isn't vouched for"},
		{"an authority below the pinned one", &authority{cert: cross, key: next.key}, nil, []*authority{ca}, now, ""},
		{"one that has ended", ended, nil, []*authority{ended}, now, "isn't vouched for"},
		{"one that has ended, within its time", ended, nil, []*authority{ended}, now.Add(-18 * 30 * day), ""},
		{"one that hasn't begun", later, nil, []*authority{later}, now, "isn't vouched for"},
		{"below one that has ended", endedNext, []*x509.Certificate{ended.cert}, []*authority{ended}, now, "isn't vouched for"},
		{"the server", web, nil, []*authority{ca}, now, "isn't a CA's"},
		{"the server, pinned", web, nil, []*authority{web}, now, "isn't a CA's"},
		{"a chain with the server in it", ca, []*x509.Certificate{web.cert}, []*authority{ca}, now, "isn't a CA's"},
		{"an authority that may not certify, saying that it may", newAuthorityOf(t, "CRL signer", crl.key, nil, nil), []*x509.Certificate{crl.cert}, []*authority{ca}, now, "no certificate authority"},
		{"an authority that may not certify", crl, nil, []*authority{ca}, now, "no certificate authority"},
		{"P-384", newAuthorityOf(t, "CA", p384, nil, nil), nil, nil, now, "another curve"},
		{"RSA", newAuthorityOf(t, "CA", rsaKey, nil, nil), nil, nil, now, "signature has 256 bytes"},
	} {
		trust := c.trust
		if trust == nil {
			trust = []*authority{c.signer}
		}
		var cas []*x509.Certificate
		for _, a := range trust {
			cas = append(cas, a.cert)
		}
		got, _, err := judge(respond(t, c.signer, nonce, c.at, c.also...), nonce, cas)
		switch {
		case c.want == "" && (err != nil || !got.Equal(c.at)):
			t.Errorf("%s: %s, %v", c.name, got, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestParseTime(t *testing.T) {
	for in, want := range map[string]time.Time{
		"2026-11-23T12:00:00Z":           time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC),
		"2026-11-23T12:00:00.5Z":         time.Date(2026, 11, 23, 12, 0, 0, 5e8, time.UTC),
		"2026-11-23T12:00:00.000000001Z": time.Date(2026, 11, 23, 12, 0, 0, 1, time.UTC),
	} {
		if got, err := parseTime(in); err != nil || !got.Equal(want) {
			t.Errorf("%q: %s, %v", in, got, err)
		}
	}
	for _, in := range []string{
		"", "Z", "2026-11-23", "2026-11-23T12:00:00", "2026-11-23T12:00:00+00:00", "2026-11-23T12:00:00,5Z", "2026-11-23T12:00:00.Z",
		"2026-11-23T12:00:00.0000000001Z", "2026-11-23T24:00:00Z", "2026-02-30T12:00:00Z", "2026-11-23 12:00:00Z", "2026-11-23t12:00:00Z",
		"2026-11-23T12:00:00z", "2026-11-23T1:00:00.0Z", "2026-11-23T12:00:60Z", " 2026-11-23T12:00:00Z", "2026-11-23T12:00:00.-1Z", "2026-11-23T12:00:00Z\n", strings.Repeat("2", 1<<20),
	} {
		if got, err := parseTime(in); err == nil || len(err.Error()) > 200 {
			t.Errorf("%.40q: %s, %.300v", in, got, err)
		}
	}
}

// FuzzJudge has anybody answer: what is accepted is the one true answer.
func FuzzJudge(f *testing.F) {
	ca := newAuthority(f, "CA", nil, nil)
	nonce := strings.Repeat("ab", 32)
	good := respond(f, ca, nonce, time.Now())
	f.Add(good.Nonce, good.ServerTime, good.SignerPEM, good.Signature)
	f.Add(good.Nonce, "2026-11-23T12:00:00,5Z", good.SignerPEM, good.Signature)
	f.Add(good.Nonce, good.ServerTime, good.SignerPEM+string(pkitest.EncodePEM(newAuthority(f, "CA", ca, nil).cert)), good.Signature)
	f.Add("", "", "-----BEGIN CERTIFICATE-----\n", []byte{0x30})
	f.Fuzz(func(t *testing.T, n, text, signer string, signature []byte) {
		a := nodeapi.TimeResponse{Nonce: n, ServerTime: text, SignerPEM: signer, Signature: signature}
		got, _, err := judge(a, nonce, []*x509.Certificate{ca.cert})
		if err != nil {
			if len(err.Error()) > 2000 {
				t.Fatalf("%d characters of error", len(err.Error()))
			}
			return
		}
		if n != nonce || text != good.ServerTime || got.Format(time.RFC3339Nano) != good.ServerTime {
			t.Fatalf("accepted: %+v as %s", a, got)
		}
	})
}

// FuzzParseTime: what is read is what was written.
func FuzzParseTime(f *testing.F) {
	f.Add("2026-11-23T12:00:00.123456789Z")
	f.Add("0000-01-01T00:00:00Z")
	f.Fuzz(func(t *testing.T, in string) {
		got, err := parseTime(in)
		if err != nil {
			return
		}
		if slow, err := time.Parse(time.RFC3339Nano, in); err != nil || !slow.Equal(got) || got.Location() != time.UTC {
			t.Fatalf("%q: %s, and package time says %s, %v", in, got, slow, err)
		}
	})
}
