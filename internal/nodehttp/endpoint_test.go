package nodehttp

import (
	"bytes"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
)

func TestParsePlatformURL(t *testing.T) {
	for _, c := range []struct{ in, want, err string }{
		{in: "https://p.example", want: "https://p.example"},
		{in: "https://P.Example:443/", want: "https://p.example"},
		{in: "https://p.example:8443//", want: "https://p.example:8443"},
		{in: "https://p.example/base/", want: "https://p.example/base"},
		{in: "HTTPS://127.0.0.1:1", want: "https://127.0.0.1:1"},
		{in: "https://[2001:DB8::1]:8443", want: "https://[2001:db8::1]:8443"},
		{in: "https://[fe80::1%25eth0]", want: "https://[fe80::1%25eth0]"},
		{in: "http://p.example", err: "http sends the token in clear"},
		{in: "p.example", err: "doesn't begin with https://"},
		{in: "p.example:8443", err: "isn't a URL"},
		{in: "", err: "doesn't begin with https://"},
		{in: "ftp://p.example", err: "doesn't begin with https://"},
		{in: "https://", err: "isn't a URL"},
		{in: "https:///x", err: "isn't a URL"},
		{in: "https:p.example", err: "isn't a URL"},
		{in: "https://u:hunter2@p.example", err: "user name or password"},
		{in: "https://u:hunter2@p.exa mple", err: "isn't a URL"},
		{in: "https://p.example?x=1", err: "query or a fragment"},
		{in: "https://p.example?", err: "query or a fragment"},
		{in: "https://p.example#x", err: "query or a fragment"},
		{in: "https://p.example:", err: "empty port"},
		{in: "https://p.example:0", err: "no valid port"},
		{in: "https://p.example:99999", err: "no valid port"},
		{in: "https://p.example:port", err: "isn't a URL"},
		{in: "https://p.example/a/../b", err: "dot segments"},
		{in: "https://p.example/a//b", err: "dot segments"},
		{in: "https://p_.example,q.example", err: "no valid host name"},
		{in: "https://" + strings.Repeat("a", 3000), err: "too long"},
		{in: "https://p.example\n", err: "isn't a URL"},
	} {
		got, err := ParsePlatformURL(c.in)
		switch {
		case c.err == "" && (err != nil || got != c.want):
			t.Errorf("%q: got %q, %v; want %q", c.in, got, err, c.want)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%q: got %q, %v; want an error with %q", c.in, got, err, c.err)
		case c.err != "" && (fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Input || fault.HintOf(err) == ""):
			t.Errorf("%q: kind %v, area %v, hint %q", c.in, fault.KindOf(err), fault.AreaOf(err), fault.HintOf(err))
		case err != nil && strings.Contains(err.Error(), "hunter2"):
			t.Errorf("%q: the error shows the password: %v", c.in, err)
		}
	}
}

func FuzzParsePlatformURL(f *testing.F) {
	for _, s := range []string{"https://p.example:443/a/", "https://[::1%25x]:1", "http://a", "https://a@b", "https://a?b#c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParsePlatformURL(s)
		if err != nil {
			return
		}
		if !strings.HasPrefix(got, "https://") || strings.HasSuffix(got, "/") {
			t.Fatalf("%q gives %q", s, got)
		}
		if again, err := ParsePlatformURL(got); err != nil || again != got {
			t.Fatalf("%q gives %q, and that %q, %v", s, got, again, err)
		}
	})
}

func TestParseCAs(t *testing.T) {
	ca := pkitest.NewCA(t, "CA one")
	both := append(ca.PEM(), pkitest.NewCA(t, "CA two").PEM()...)
	leaf := pkitest.EncodePEM(ca.Issue(ca.Web()).Leaf)
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})
	for _, c := range []struct {
		name string
		in   []byte
		want int
		err  string
	}{
		{name: "one", in: ca.PEM(), want: 1},
		{name: "two with text between", in: append([]byte("Subject: one\n"), append(ca.PEM(), append([]byte("two\n"), both...)...)...), want: 3},
		{name: "CRLF", in: bytes.ReplaceAll(ca.PEM(), []byte("\n"), []byte("\r\n")), want: 1},
		{name: "empty", err: "no PEM certificate"},
		{name: "text", in: []byte("not a certificate"), err: "no PEM certificate"},
		{name: "leaf", in: leaf, err: "isn't a CA's"},
		{name: "key", in: append(ca.PEM(), key...), err: `type "PRIVATE KEY"`},
		{name: "rubbish inside", in: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("rubbish")}), err: "doesn't parse"},
		{name: "cut off", in: both[:len(both)-40], err: "cut off"},
		{name: "cut off at once", in: ca.PEM()[:80], err: "no PEM certificate"},
		{name: "huge", in: bytes.Repeat([]byte("x"), MaxCABytes+1), err: "more than"},
		{name: "many", in: bytes.Repeat(ca.PEM(), maxCAs+1), err: "more than 32"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseCAs(c.in)
			if c.err == "" && (err != nil || len(got) != c.want) {
				t.Errorf("got %d certificates, %v; want %d", len(got), err, c.want)
			}
			if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), "CA certificate")) {
				t.Errorf("got %v, want an error with %q", err, c.err)
			}
		})
	}
}

func FuzzParseCAs(f *testing.F) {
	ca := pkitest.NewCA(f, "CA")
	f.Add(ca.PEM())
	f.Add(ca.PEM()[:100])
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		cas, err := ParseCAs(b)
		if err == nil && (len(cas) == 0 || len(cas) > maxCAs) {
			t.Fatalf("%d certificates without an error", len(cas))
		}
	})
}
