package services

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/health/systemd/systemdtest"
)

// metadataServices are addresses at which clouds hand out credentials, and how else they are written.
var metadataServices = []string{
	"169.254.169.254", "169.254.169.252", "169.254.170.2", "169.254.170.23", "169.254.0.23", "169.254.42.42", "168.63.129.16", "100.100.100.200", "192.0.0.192",
	"fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fe80::a9fe:a9fe", "fe80::a9fe:a9fe%eth0", "fd00:c1::a9fe:a9fe", "fd00:a9fe:a9fe::1", "fd00:100::100:200",
	"fd00:42::42", "::ffff:168.63.129.16", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b::168.63.129.16",
}

// TestNoNameOpensAMetadataService: whoever owns a name chooses what it means; the manifest alone opens such an address.
func TestNoNameOpensAMetadataService(t *testing.T) {
	for _, text := range metadataServices {
		a := netip.MustParseAddr(text)
		answer := map[string]Answer{"evil.example": {Addresses: []netip.Addr{a}}}
		if e := (Egress{}).Next(nil, answer, begin); len(e.Allowed) > 0 {
			t.Errorf("a name opens %s: %v", text, e.Allowed)
		}
		// Nor what was found by an agent that knew less of them.
		old := Egress{Names: map[string]map[netip.Addr]time.Time{"evil.example": {a: begin}}}
		for _, answer := range []Answer{{}, {Err: errors.New("no answer")}} {
			if e := old.Next(nil, map[string]Answer{"evil.example": answer}, begin); len(e.Allowed) > 0 {
				t.Errorf("a record opens %s: %v", text, e.Allowed)
			}
		}
		if e := (Egress{}).Next([]netip.Addr{a}, answer, begin); !slices.Equal(e.Allowed, []netip.Addr{a}) {
			t.Errorf("the manifest doesn't open %s: %v", text, e.Allowed)
		}
	}
	for _, text := range []string{"169.254.169.253", "168.63.129.17", "100.100.2.136", "fd00:ec2::253", "64:ff9b::c000:201", "10.0.0.1", "2001:db8::1"} {
		if metadata(netip.MustParseAddr(text)) {
			t.Errorf("%s is taken for a metadata service", text)
		}
	}
	if !mayBeNamed(netip.MustParseAddr("64:ff9b::c000:201")) || mayBeNamed(netip.MustParseAddr("64:ff9b::7f00:1")) {
		t.Error("what NAT64 translates counts as what it is translated to")
	}
}

// TestNameServerThatIsAMetadataService stays closed: on Google's and Azure's machines both have one address. The status says what follows.
func TestNameServerThatIsAMetadataService(t *testing.T) {
	for _, c := range []struct {
		servers, named, want []string
		remark               string
	}{
		{servers: []string{"203.0.113.53"}, want: []string{"192.0.2.1", "203.0.113.53"}},
		{servers: []string{"127.0.0.53"}, want: []string{"127.0.0.53", "192.0.2.1"}},
		{servers: nil, want: []string{"192.0.2.1"}},
		{servers: []string{"169.254.169.253"}, want: []string{"169.254.169.253", "192.0.2.1"}},
		{servers: []string{"169.254.169.254"}, want: []string{"192.0.2.1"}, remark: "169.254.169.254"},
		{servers: []string{"168.63.129.16"}, want: []string{"192.0.2.1"}, remark: "168.63.129.16"},
		{servers: []string{"fe80::a9fe:a9fe%eth0", "169.254.169.254"}, want: []string{"192.0.2.1"}, remark: "fe80::a9fe:a9fe"},
		{servers: []string{"169.254.169.254", "203.0.113.53"}, want: []string{"192.0.2.1", "203.0.113.53"}},
		{servers: []string{"168.63.129.16"}, named: []string{"168.63.129.16"}, want: []string{"168.63.129.16", "192.0.2.1"}},
	} {
		f, run := &systemdtest.Fake{}, t.TempDir()
		f.Start(t, run)
		m := moduleOf(t, "schema_version: 1\nname: m\nsecurity: {egress_allow: ["+strings.Join(append([]string{"a.example"}, c.named...), ", ")+"]}\nservices:\n- {name: a, start_command: /bin/a}\n")
		if _, err := Place(run, MakeAll([]Module{m}, Node{Agent: agentPath})); err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for _, s := range c.servers {
			text.WriteString("nameserver " + s + "\n")
		}
		resolv := filepath.Join(t.TempDir(), "resolv.conf")
		if err := os.WriteFile(resolv, []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		r := Refresher{
			Resolver: names{"a.example": {netip.MustParseAddr("192.0.2.1")}}, Peers: systemd.Manager{Run: run}, Run: run, ResolvConf: resolv,
			Unit: "powernode-m_a.service", Names: []string{"a.example"}, Now: func() time.Time { return begin },
		}
		for _, a := range c.named {
			r.Addresses = append(r.Addresses, netip.MustParseAddr(a))
		}
		e, err := r.Refresh(t.Context())
		if diff := cmp.Diff(c.want, texts(e.Allowed)); err != nil || diff != "" {
			t.Errorf("%v: %v\n%s", c.servers, err, diff)
		}
		report, err := Control{Systemd: systemd.Manager{Run: run}, Run: run}.Do(t.Context(), "m", ActionStatus)
		said := strings.Join(report.Remarks, "\n")
		if err != nil || strings.Contains(said, "can look up no names") != (c.remark != "") || !strings.Contains(said, c.remark) {
			t.Errorf("%v: %v, %q", c.servers, err, said)
		}
		if (e.Remark() != "") != (c.remark != "") {
			t.Errorf("%v: %q", c.servers, e.Remark())
		}
	}
}
