package identity

import (
	"encoding/json"
	"fmt"
	"log/slog"
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
		{"http for a CA", Raw{CAURL: "http://boot.example/ca.pem?x=1"}, func(f Found) bool { return f.CAURL == "http://boot.example/ca.pem?x=1" }, ""},
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
	raw := Raw{Token: token, Proxy: "http://u:hunter2@p.example:3128"}
	found, err := raw.Check("here", nil)
	if err != nil {
		t.Fatal(err)
	}
	var id Identity
	id.add("here", found)
	var out strings.Builder
	fmt.Fprintf(&out, "%v %+v %#v %s %q %v %+v %v %+v %#v", raw, raw, raw, raw, raw, found, found, id, id, struct{ r any }{found.Proxy})
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "raw", raw, "found", found, "id", id, "proxy", found.Proxy)
	if err := json.NewEncoder(&out).Encode([]any{found, id, found.Proxy}); err != nil {
		t.Fatal(err)
	}
	if s := out.String(); strings.Contains(s, "hunter2") || strings.Contains(s, token) || !strings.Contains(s, "u:redacted@p.example") {
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
