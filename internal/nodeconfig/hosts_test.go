package nodeconfig

import (
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

func TestHostnames(t *testing.T) {
	for name, want := range map[string]string{
		"web-1": "web-1", "WEB-1.Example.ORG": "web-1.example.org", "1": "1", "3com": "3com", "a.2b": "a.2b", strings.Repeat("a", 63): strings.Repeat("a", 63),
		"": "", "-a": "", "a-": "", "a..b": "", ".a": "", "a.": "", "a_b": "", "a b": "", "a\nb": "", "ä": "", "10.0.0.1": "", "a.1": "", "localhost": "", "LOCALHOST.localdomain": "",
		strings.Repeat("a", 64): "", strings.Repeat("a.", 33) + "a": "", "a\x00": "",
	} {
		got, err := CheckHostname(name)
		if (err == nil) != (want != "") || err == nil && got != want {
			t.Errorf("%q: %q, %v; want %q", name, got, err, want)
		}
	}
	for file, want := range map[string]string{"web\n": "web", "# x\n\n  web  \nother\n": "web", "": "", "\n#\n": "", "web": "web"} {
		if got := HostnameIn([]byte(file)); got != want {
			t.Errorf("%q: %q", file, got)
		}
	}
}

func TestHosts(t *testing.T) {
	entries := ParseHostsFile("# own\n10.0.0.5\tDB.internal db # the database\n\n::ffff:10.0.0.6 x\n2001:DB8::1 db.internal\n127.0.0.1 localhost\n")
	hosts, err := ParseHosts(entries)
	if err != nil || len(hosts) != 4 {
		t.Fatalf("%v, %v", hosts, err)
	}
	for i, want := range []string{"10.0.0.5 db.internal db", "10.0.0.6 x", "2001:db8::1 db.internal", "127.0.0.1 localhost"} {
		if got := hosts[i].String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for _, file := range []string{
		"10.0.0.5\n", "db 10.0.0.5\n", "10.0.0 a\n", "0.0.0.0 a\n", "ff02::1 a\n", "fe80::1%eth0 a\n", "10.0.0.5 a_b\n", "10.0.0.5 localhost\n",
		"10.0.0.5 a\n10.0.0.5 A\n", "10.0.0.5" + strings.Repeat(" a", nodeapi.MaxHostNames+1), strings.Repeat("10.0.0.5 a\n", nodeapi.MaxHosts+1),
	} {
		if hosts, err := ParseHosts(ParseHostsFile(file)); err == nil {
			t.Errorf("%.60q is accepted: %v", file, hosts)
		}
	}
	if hosts, err := ParseHosts([]nodeapi.HostEntry{{Address: "10.0.0.5", Names: []string{"a\n10.0.0.6 bank"}}}); err == nil {
		t.Errorf("a line in a name: %v", hosts)
	}
}

func FuzzHosts(f *testing.F) {
	f.Add("10.0.0.5 db.internal db\n::1 localhost")
	f.Add("# x\n10.0.0.5\ta-b")
	f.Fuzz(func(t *testing.T, file string) {
		hosts, err := ParseHosts(ParseHostsFile(file))
		if err != nil {
			return
		}
		var b strings.Builder
		for _, h := range hosts {
			if strings.ContainsAny(h.String(), "\n\r#\x00") {
				t.Fatalf("%q", h)
			}
			b.WriteString(h.String() + "\n")
		}
		again, err := ParseHosts(ParseHostsFile(b.String()))
		if err != nil || len(again) != len(hosts) {
			t.Fatalf("%q: %v", b.String(), err)
		}
	})
}
