package network

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// eth is a view of a link with a carrier and the addresses.
func eth(name string, prefixes ...string) view {
	v := view{link: link{name: name, index: 2, ethernet: true, up: true, carrier: true}, spec: spec{dhcp4: true, auto6: true}}
	for _, p := range prefixes {
		v.link.addrs = append(v.link.addrs, address{prefix: netip.MustParsePrefix(p), ready: true})
	}
	return v
}

func (v view) with(change func(*view)) view {
	change(&v)
	return v
}

func leased(v *view) {
	v.lease4 = &lease{source: SourceDHCP, address: v.link.addrs[0].prefix}
}

func routed6(v *view) { v.link.defaults = addrs("fe80::1") }

func TestJudge(t *testing.T) {
	idle := eth("eth0").with(func(v *view) { v.link.carrier = false })
	v6 := eth("eth0", "fd00::7/64").with(routed6)
	only6 := v6.with(func(v *view) { v.spec.dhcp4 = false })
	for _, c := range []struct {
		name    string
		s       situation
		ready   bool
		err     string
		again   time.Duration
		waiting string
	}{
		{"at the start", situation{}, false, "", 5 * time.Second, "no network link yet"},
		{"no link", situation{elapsed: 5 * time.Second}, false, "this machine has no network link", 0, "no network link yet"},
		{"another link", situation{elapsed: 5 * time.Second, others: 1}, false, "", time.Minute, "the link that ip= names"},
		{"another link, late", situation{elapsed: time.Minute, others: 1}, false, "none of this machine's links", 0, ""},
		{"off", situation{config: Config{Off: true}}, false, "ip=off", 0, ""},
		{"no carrier", situation{views: []view{idle}}, false, "", time.Minute, "no link has a carrier (eth0), waiting for one"},
		{"no carrier, late", situation{views: []view{idle}, elapsed: time.Minute}, false, "no link has a carrier (eth0) after 1m0s", 0, ""},
		{"carrier", situation{views: []view{eth("eth0"), idle}, problems: []string{"no DHCP server answers on eth0"}}, false, "", time.Minute, "eth0 has a carrier, asking for an address by DHCP and listening for an IPv6 router (no DHCP server answers on eth0)"},
		{"carrier, late", situation{views: []view{eth("eth0")}, elapsed: time.Minute, problems: []string{"no DHCP server answers on eth0"}}, false, "eth0 has no address after 1m0s: no DHCP server answers on eth0", 0, ""},
		{"a lease", situation{views: []view{eth("eth0", "10.0.0.7/24").with(leased)}}, true, "", 0, ""},
		{"a lease whose address is gone", situation{views: []view{eth("eth0", "10.0.0.7/24").with(leased).with(func(v *view) { v.link.addrs = nil })}}, false, "", time.Minute, "asking for an address by DHCP"},
		{"IPv6, at once", situation{views: []view{v6}, dns: true, elapsed: time.Second}, false, "", 4 * time.Second, "asking for an address by DHCP"},
		{"IPv6, after the grace", situation{views: []view{v6}, usableFor: 3 * time.Second}, true, "", 0, "asking for an address by DHCP"},
		{"IPv6 alone without DNS", situation{views: []view{only6}, elapsed: time.Second}, false, "", 4 * time.Second, ""},
		{"IPv6 alone with DNS", situation{views: []view{only6}, dns: true}, true, "", 0, ""},
		{"IPv6 without a router", situation{views: []view{eth("eth0", "fd00::7/64")}}, false, "", time.Minute, "listening"},
		{"link-local", situation{views: []view{eth("eth0", "fe80::7/64", "169.254.1.1/16").with(routed6)}}, false, "", time.Minute, "listening"},
		{"being checked", situation{views: []view{v6.with(func(v *view) { v.link.addrs = []address{{prefix: v.link.addrs[0].prefix}} })}}, false, "", time.Minute, "listening"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.s.deadline, c.s.settle, c.s.grace = time.Minute, 5*time.Second, 3*time.Second
			v := judge(c.s)
			if v.ready != c.ready || v.again != c.again || (v.err != nil) != (c.err != "") {
				t.Errorf("%+v", v)
			}
			if v.err != nil && (!strings.Contains(v.err.Error(), c.err) || fault.HintOf(v.err) == "") {
				t.Errorf("%v (%s)", v.err, fault.HintOf(v.err))
			}
			if w := waiting(c.s); !strings.Contains(w, c.waiting) || c.waiting == "" && c.err == "" && w != "" {
				t.Errorf("waits for %q", w)
			}
		})
	}
}

func TestDescribe(t *testing.T) {
	v := eth("eth0", "10.0.0.7/24", "fd00::7/64", "fe80::7/64").with(leased).with(routed6)
	v.lease4.dns, v.lease4.hostname, v.lease4.search = addrs("10.0.0.53"), "leased", []string{"lab.example"}
	v.dns = addrs("fe80::53", "10.0.0.53")
	s := describe(Config{DNS: addrs("192.0.2.53"), Links: []LinkConfig{{Method: MethodDHCP, Hostname: "wanted"}}}, []view{v})
	if s.Hostname != "wanted" || len(s.DNS) != 3 || s.DNS[0] != netip.MustParseAddr("192.0.2.53") || s.DNS[2] != netip.MustParseAddr("fe80::53%eth0") {
		t.Errorf("%+v", s)
	}
	if a := s.Links[0].Addresses; len(a) != 2 || a[0].Source != SourceDHCP || a[1].Source != SourceRA {
		t.Errorf("%+v", a)
	}
	if got, want := upLine(s), "eth0 has 10.0.0.7/24 (dhcp), fd00::7/64 (ra) by fe80::1%eth0; DNS 192.0.2.53"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestSpecFor(t *testing.T) {
	eth0 := link{index: 2, name: "eth0", ethernet: true}
	bridge := link{index: 3, name: "br0", ethernet: true, kind: "bridge"}
	lo := link{index: 1, name: "lo", loopback: true}
	slave := link{index: 4, name: "eth1", ethernet: true, slave: true}
	named := Config{Links: []LinkConfig{{Device: "br0", Method: MethodDHCP}, {Method: MethodStatic, Address: netip.MustParsePrefix("10.0.0.7/24")}}}
	for _, c := range []struct {
		c        Config
		l        link
		anywhere int
		ok       bool
		waits    bool
		static   int
	}{
		{Config{}, eth0, 0, true, true, 0},
		{Config{}, bridge, 0, false, true, 0},
		{Config{}, lo, 0, false, false, 0},
		{Config{}, slave, 0, false, true, 0},
		{Config{Off: true}, eth0, 0, false, false, 0},
		{named, bridge, 0, true, true, 0},
		{named, eth0, 0, true, false, 0},
		{named, eth0, 2, true, false, 1},
		{named, lo, 1, false, false, 0},
	} {
		s, ok := c.c.specFor(c.l, c.anywhere)
		if ok != c.ok || (s.dhcp4 || s.auto6 || s.dhcp6) != c.waits || len(s.static) != c.static {
			t.Errorf("%s, %+v: %+v, %v", c.l.name, c.c, s, ok)
		}
	}
}

func TestSpeakerKeepsPace(t *testing.T) {
	var said []string
	s := speaker{to: func(l string) { said = append(said, l) }, at: noon}
	at := func(ms int) time.Time { return noon.Add(time.Duration(ms) * time.Millisecond) }
	s.say(at(1), "a", false)
	s.say(at(2), "b", false)
	if wait := s.due(at(100)); wait != 400*time.Millisecond || len(said) != 0 {
		t.Errorf("%v, said %q", wait, said)
	}
	s.due(at(500))
	s.say(at(501), "b", false)
	s.say(at(502), "c", false)
	s.say(at(503), "b", false) // as it was: nothing to say
	s.due(at(2000))
	s.say(at(2001), "d", true)
	for range 3 {
		s.remark("odd")
	}
	if got := strings.Join(said, ""); got != "bdodd" {
		t.Errorf("said %q", said)
	}
	for i := range 600 { // ten minutes of a link that flaps every second
		s.say(at(10000+1000*i), strings.Repeat("f", i%2+1), false)
		s.due(at(10000 + 1000*i))
	}
	if len(said) > chatty+14 {
		t.Errorf("said %d lines", len(said))
	}
	said = nil
	for i := range 200 {
		s.remark(strings.Repeat("x", i))
	}
	if len(said) > maxRemarks {
		t.Errorf("said %d lines", len(said))
	}
}
