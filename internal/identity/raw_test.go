package identity

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
)

func TestRawCheck(t *testing.T) {
	ca, other := pkitest.NewCA(t, "CA"), pkitest.NewCA(t, "Other")
	mark := Fingerprint(ca.Cert)
	colons := strings.ToUpper(mark[:2])
	for i := 2; i < len(mark); i += 2 {
		colons += ":" + strings.ToUpper(mark[i:i+2])
	}
	both := string(ca.PEM()) + string(other.PEM())
	for _, c := range []struct {
		name string
		raw  Raw
		want func(Found) bool
		err  string
	}{
		{"fingerprint with colons", Raw{CASHA256: colons}, func(f Found) bool { return len(f.CASHA256) == 1 && f.CASHA256[0] == mark }, ""},
		{"two fingerprints", Raw{CASHA256: "sha256:" + mark + ", " + Fingerprint(other.Cert) + "," + colons}, func(f Found) bool { return len(f.CASHA256) == 2 }, ""},
		{"a bundle is cut to the fingerprint", Raw{CA: both, CASHA256: colons}, func(f Found) bool { return string(f.CAPEM) == string(ca.PEM()) }, ""},
		{"http for a CA", Raw{CAURL: "http://boot.example/ca.pem?x=1"}, func(f Found) bool { return f.CAURL.Reveal() == "http://boot.example/ca.pem?x=1" }, ""},
		{"proxy", Raw{Proxy: "http://u:hunter2@p.example:3128"}, func(f Found) bool { return f.Proxy.URL().User.String() == "u:hunter2" }, ""},
		{"clock", Raw{Clock: "local"}, func(f Found) bool { return f.Clock == ClockLocal }, ""},
		{"short fingerprint", Raw{CASHA256: mark[2:]}, nil, "ca_sha256: "},
		{"empty fingerprint", Raw{CASHA256: mark + ","}, nil, "ca_sha256: "},
		{"many fingerprints", Raw{CASHA256: many(9)}, nil, "at most 8"},
		{"another's fingerprint", Raw{CA: string(other.PEM()), CASHA256: mark}, nil, "no certificate has the fingerprint"},
		{"file URL", Raw{CAURL: "file:///etc/ca.pem"}, nil, "ca_url: "},
		{"URL with a password", Raw{CAURL: "https://u:hunter2@x/"}, nil, "user name"},
		{"URL without host", Raw{CAURL: "https:///x"}, nil, "ca_url: "},
		{"URL with fragment", Raw{CAURL: "https://x/#a"}, nil, "fragment"},
		{"long URL", Raw{CAURL: "https://x/" + strings.Repeat("a", 3000)}, nil, "too long"},
		{"https proxy", Raw{Proxy: "https://u:hunter2@p:1"}, nil, "proxy: "},
		{"some clock", Raw{Clock: "sundial"}, nil, "platform or local"},
	} {
		found, err := c.raw.Check("here", nil)
		switch {
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "hunter2") || fault.KindOf(err) != fault.Refuse):
			t.Errorf("%s: %v", c.name, err)
		case c.err == "" && (err != nil || !c.want(found) || found.Where != "here"):
			t.Errorf("%s: %+v, %v", c.name, found, err)
		}
	}
}

// FuzzCheck judges what the fields of a CA, and the rest, may hold.
func FuzzCheck(f *testing.F) {
	ca := string(pkitest.NewCA(f, "CA").PEM())
	mark := strings.Repeat("0f", 32)
	f.Add(ca, "https://x.example/ca.pem?q=1", "sha256:"+strings.ToUpper(mark)+", "+mark, uuid, token, "https://p.example:8443", "http://u:hunter2@p:3128", "local")
	f.Add(strings.ReplaceAll(ca, "\n", `\n`), "http://[::1]/", many(9), "", "", "http://p", "p:1", "")
	f.Add("TUlJ", "HTTP://X#", ",", strings.Repeat("0", 36), "a b", "https://u:hunter2@p", "http://p:0", "x")
	f.Fuzz(func(t *testing.T, ca, caURL, marks, id, tok, platform, proxy, clock string) {
		raw := Raw{CA: ca, CAURL: caURL, CASHA256: marks, InstanceID: id, Token: tok, PlatformURL: platform, Proxy: proxy, Clock: clock}
		found, err := raw.Check("fuzz", nil)
		if err != nil {
			if len(found.fields()) > 0 || fault.KindOf(err) != fault.Refuse {
				t.Fatalf("%v beside %v", err, found.fields())
			}
			return
		}
		mustBeSound(t, found)
		// What was judged good is so again, and means the same.
		again, err := Raw{
			CA: string(found.CAPEM), CAURL: found.CAURL.Reveal(), CASHA256: strings.Join(found.CASHA256, ","), InstanceID: found.InstanceID,
			Token: found.Token.Reveal(), PlatformURL: found.PlatformURL, Proxy: found.Proxy.Reveal(), Clock: string(found.Clock),
		}.Check("fuzz", nil)
		if err != nil || !reflect.DeepEqual(again, found) {
			t.Fatalf("%+v is read as %+v, %v", found, again, err)
		}
		for _, m := range found.CASHA256 {
			if len(m) != 64 || strings.Trim(m, "0123456789abcdef") != "" {
				t.Fatalf("fingerprint %q", m)
			}
		}
		if s := found.CAURL.String(); strings.Contains(s, "?") && !strings.HasSuffix(s, "?redacted") {
			t.Fatalf("it shows the query of %q", found.CAURL.Reveal())
		}
		if cas, err := nodehttp.ParseCAs(found.CAPEM); len(found.CAPEM) > 0 && (err != nil || len(cas) == 0) {
			t.Fatalf("%d authorities, %v", len(cas), err)
		}
	})
}

func many(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("%064x", i))
	}
	return strings.Join(all, ",")
}

func TestRawNames(t *testing.T) {
	var raw Raw
	for _, f := range Fields() {
		if FileKey(f) == "" {
			t.Errorf("identity.cfg has no name for %s", f)
		}
		if !raw.Set(f.String(), " "+f.String()+"\n") || *raw.At(f) != f.String() {
			t.Errorf("%s isn't set", f)
		}
	}
	if raw.Set("instance_name", "x") || raw.IsZero() || Field(99).String() != "field 99" {
		t.Error("a name that isn't one")
	}
}

// TestNothingShowsSecrets prints what holds a token and a password in every way.
func TestNothingShowsSecrets(t *testing.T) {
	raw := Raw{Token: token, Proxy: "http://u:hunter2@p.example:3128", CAURL: "https://s3.example/ca.pem?X-Amz-Signature=hunter2"}
	found, err := raw.Check("here", nil)
	if err != nil {
		t.Fatal(err)
	}
	var id Identity
	id.add("here", found)
	var out strings.Builder
	fmt.Fprintf(&out, "%v %+v %#v %s %q %v %+v %v %+v %#v %v %q", raw, raw, raw, raw, raw, found, found, id, id, struct{ r any }{found.Proxy}, found.CAURL, found.CAURL)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "raw", raw, "found", found, "id", id, "proxy", found.Proxy, "CA", found.CAURL)
	if err := json.NewEncoder(&out).Encode([]any{found, id, found.Proxy, found.CAURL}); err != nil {
		t.Fatal(err)
	}
	if s := out.String(); strings.Contains(s, "hunter2") || strings.Contains(s, token) || !strings.Contains(s, "u:redacted@p.example") || !strings.Contains(s, "https://s3.example/ca.pem?redacted") {
		t.Error(s)
	}
}

func caPEM(t *testing.T) string {
	t.Helper()
	return string(pkitest.NewCA(t, "CA").PEM())
}

func fingerprintOf(t *testing.T, bundle string) string {
	t.Helper()
	cas, err := nodehttp.ParseCAs([]byte(bundle))
	if err != nil {
		t.Fatal(err)
	}
	return Fingerprint(cas[0])
}
