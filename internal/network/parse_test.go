package network

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/fault"
)

var compareAddrs = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func TestParseIP(t *testing.T) {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	for value, want := range map[string]LinkConfig{
		"":                  {Method: MethodAny}, // the kernel: every field is empty
		"dhcp":              {Method: MethodDHCP},
		"on":                {Method: MethodAny},
		"any":               {Method: MethodAny},
		"dhcp6":             {Method: MethodDHCP6},
		"auto6":             {Method: MethodAuto6},
		"eth0:dhcp":         {Device: "eth0", Method: MethodDHCP},
		"enp1s0.5:any:9000": {Device: "enp1s0.5", Method: MethodAny, MTU: 9000},
		"::::node:eth0:dhcp": {
			Device: "eth0", Method: MethodDHCP, Hostname: "node",
		},
		":::::eth0":  {Device: "eth0", Method: MethodAny},
		"::::node-1": {Method: MethodAny, Hostname: "node-1"},
		"192.0.2.7::192.0.2.1:255.255.255.0:node:eth0:off": {
			Device: "eth0", Method: MethodStatic, Address: p("192.0.2.7/24"), Gateway: a("192.0.2.1"), Hostname: "node",
		},
		"192.0.2.7:192.0.2.9:192.0.2.1:255.255.255.128:n.example:eth0:none:192.0.2.53:192.0.2.54:192.0.2.123": {
			Device: "eth0", Method: MethodStatic, Address: p("192.0.2.7/25"), Gateway: a("192.0.2.1"), Hostname: "n.example",
			DNS: addrs("192.0.2.53", "192.0.2.54"), NTP: addrs("192.0.2.123"),
		},
		"10.1.2.3":                      {Method: MethodStatic, Address: p("10.1.2.3/8")},
		"10.1.2.3:::24::eth0:none:1400": {Device: "eth0", Method: MethodStatic, Address: p("10.1.2.3/24"), MTU: 1400},
		"10.1.2.3/30::10.1.2.1:":        {Method: MethodStatic, Address: p("10.1.2.3/30"), Gateway: a("10.1.2.1")},
		"[2001:db8::7]::[2001:db8::1]:64:n:eth0:none:[2001:db8::53]": {
			Device: "eth0", Method: MethodStatic, Address: p("2001:db8::7/64"), Gateway: a("2001:db8::1"), Hostname: "n", DNS: addrs("2001:db8::53"),
		},
		"[2001:db8::7]::[fe80::1]":      {Method: MethodStatic, Address: p("2001:db8::7/64"), Gateway: a("fe80::1")},
		"[2001:db8::7/56]:::::eth0":     {Device: "eth0", Method: MethodStatic, Address: p("2001:db8::7/56")},
		"10.1.2.3::10.9.9.1:32::e0:off": {Device: "e0", Method: MethodStatic, Address: p("10.1.2.3/32"), Gateway: a("10.9.9.1")},
	} {
		got, err := Parse([]Param{{"ip", value}})
		if err != nil {
			t.Errorf("ip=%s: %v", value, err)
			continue
		}
		if d := cmp.Diff([]LinkConfig{want}, got.Links, compareAddrs); d != "" {
			t.Errorf("ip=%s (-want +got):\n%s", value, d)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ name, value, text string }{
		{"ip", "bootp", "neither a method nor an address"},
		{"ip", "eth0", "neither a method nor an address"},
		{"ip", "eth0:bootp", "isn't a method"},
		{"ip", "eth0:ibft", "isn't a method"},
		{"ip", "eth0:none", "no address"},
		{"ip", "static", "no address"},
		{"ip", "eth/0:dhcp", "link's name"},
		{"ip", "averyveryverylongname:dhcp", "link's name"},
		{"ip", "eth0:dhcp:575", "MTU"},
		{"ip", "eth0:dhcp:9217", "MTU"},
		{"ip", "eth0:dhcp:1500:52:54:00:12:34:56", "fields"},
		{"ip", "300.1.1.1::::::none", "fields after"},
		{"ip", "127.0.0.1:::8::eth0:none", "one host"},
		{"ip", "224.0.0.1:::8::eth0:none", "one host"},
		{"ip", "0.0.0.0:::8::eth0:none", "one host"},
		{"ip", "10.0.0.1:::255.0.255.0::eth0:none", "netmask"},
		{"ip", "10.0.0.1:::33::eth0:none", "netmask"},
		{"ip", "10.0.0.1:::0::eth0:none", "netmask"},
		{"ip", "10.0.0.1/24:::24::eth0:none", "netmask"},
		{"ip", "10.0.0.1::[fe80::1]:24::eth0:none", "different IP versions"},
		{"ip", "10.0.0.1::10.0.0.1:24::eth0:none", "field 3"},
		{"ip", "10.0.0.1:x::24::eth0:none", "field 2"},
		{"ip", "10.0.0.1:::24:bad_name:eth0:none", "field 5"},
		{"ip", "10.0.0.1:::24:localhost:eth0:none", "field 5"},
		{"ip", "10.0.0.1:::24::et h0:none", "field 6"},
		{"ip", "10.0.0.1:::24::eth0:dhcp", "both an address"},
		{"ip", ":::::eth0:none", "field 1 holds no address"},
		{"ip", ":::24::eth0:dhcp", "without an address"},
		{"ip", "10.0.0.1:::24::eth0:none:x.y", "field 8"},
		{"ip", "10.0.0.1:::24::eth0:none:99", "field 8"},
		{"ip", "10.0.0.1:::24::eth0:none::::x", "fields"},
		{"ip", "[2001:db8::1", "isn't closed"},
		{"ip", "2001]:db8", "out of place"},
		{"ip", "[[::1]]", "out of place"},
		{"ip", "[fe80::1%eth0]:::64::eth0:none", "isn't a"},
		{"ip", "1" + strings.Repeat(":", 600), "long"},
		{"nameserver", "", "IP address"},
		{"nameserver", "dns.example", "IP address"},
		{"nameserver", "0.0.0.0", "one host"},
		{"bootdev", "", "link's name"},
		{"BOOTIF", "01-52-54", "Ethernet"},
	} {
		_, err := Parse([]Param{{"quiet", ""}, {c.name, c.value}})
		if err == nil || fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Input {
			t.Errorf("%s=%s: %v", c.name, c.value, err)
			continue
		}
		if !strings.HasPrefix(err.Error(), "read "+c.name+"=") || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s=%s: %v, want %q in it", c.name, c.value, err, c.text)
		}
	}
}

func TestParseSeveral(t *testing.T) {
	got, err := Parse([]Param{
		{"root", "x"},
		{"ip", "eth0:dhcp"},
		{"ip", "off"},
		{"nameserver", "[2001:db8::53]"},
		{"nameserver", "192.0.2.53"},
		{"bootdev", "eth0"},
		{"BOOTIF", "01-52-54-00-AB-CD-EF"},
		{"ip", "eth1:auto6"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Links: []LinkConfig{{Device: "eth0", Method: MethodDHCP}, {Device: "eth1", Method: MethodAuto6}},
		DNS:   addrs("2001:db8::53", "192.0.2.53"), Boot: BootLink{Name: "eth0", MAC: "52:54:00:ab:cd:ef"},
	}
	if d := cmp.Diff(want, got, compareAddrs); d != "" {
		t.Error(d)
	}
	if c, err := Parse([]Param{{"ip", "off"}}); err != nil || !c.Off {
		t.Errorf("ip=off: %+v, %v", c, err)
	}
	for name, n := range map[string]int{"ip": maxLinks, "nameserver": maxServers} {
		value := map[string]string{"ip": "eth0:dhcp", "nameserver": "192.0.2.1"}[name]
		var many []Param
		for range n {
			many = append(many, Param{name, value})
		}
		if _, err := Parse(many); err != nil {
			t.Errorf("%d of %s: %v", n, name, err)
		}
		if _, err := Parse(append(many, Param{name, value})); err == nil {
			t.Errorf("%d of %s are taken", n+1, name)
		}
	}
}

// What Parse accepts is something that the kernel can be told.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"dhcp", "eth0:dhcp:1500", "192.0.2.7::192.0.2.1:255.255.255.0:node:eth0:off:1.1.1.1", "[2001:db8::7]::[fe80::1]:64:n:eth0:none", "::::::", "[", "10.0.0.1/9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		c, err := Parse([]Param{{"ip", value}, {"nameserver", value}, {"BOOTIF", value}})
		if err != nil {
			c, err = Parse([]Param{{"ip", value}})
		}
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("the error isn't one line: %q", err)
			}
			return
		}
		for _, l := range c.Links {
			if l.Device != "" && !validDevice(l.Device) || l.Hostname != "" && !validHostname(l.Hostname) ||
				l.MTU != 0 && (l.MTU < minMTU || l.MTU > maxMTU) || methods[string(l.Method)] == "" {
				t.Errorf("ip=%q gives %+v", value, l)
			}
			if (l.Method == MethodStatic) != l.Address.IsValid() || l.Address.IsValid() && !unicast(l.Address.Addr()) {
				t.Errorf("ip=%q gives %+v", value, l)
			}
		}
	})
}
