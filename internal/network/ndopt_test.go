package network

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// userOpt makes the kernel's message for one option of a router's advertisement.
func userOpt(index int32, kind byte, lifetime uint32, body []byte) []byte {
	opt := make([]byte, 8, 8+len(body))
	opt[0], opt[1] = kind, byte((8+len(body))/8)
	binary.BigEndian.PutUint32(opt[4:], lifetime)
	opt = append(opt, body...)
	b := make([]byte, 16, 16+len(opt))
	b[0] = 10 // AF_INET6
	binary.NativeEndian.PutUint16(b[2:], uint16(len(opt)))
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	b[8] = 134
	return append(b, opt...)
}

func body(list ...string) []byte {
	var out []byte
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a).AsSlice()...)
	}
	return out
}

func TestParseNDUserOpt(t *testing.T) {
	ad, ok := parseNDUserOpt(userOpt(3, optRDNSS, 600, body("fd00::53", "::1", "ff02::1", "fe80::53", "fd00::53")))
	if !ok || ad.index != 3 || ad.lifetime != 10*time.Minute || !slices.Equal(ad.dns, addrs("fd00::53", "fe80::53")) {
		t.Errorf("%+v, %v", ad, ok)
	}
	ad, ok = parseNDUserOpt(userOpt(3, optDNSSL, 0, []byte("\x03lab\x07example\x00\x01b\x00")))
	if !ok || !slices.Equal(ad.search, []string{"lab.example", "b"}) || ad.lifetime != 0 {
		t.Errorf("%+v, %v", ad, ok)
	}
	good := userOpt(3, optRDNSS, 600, body("fd00::53"))
	short := slices.Clone(good)
	short[17] = 2 // the option's own length
	redirect := slices.Clone(good)
	redirect[8] = 137
	for name, b := range map[string][]byte{
		"nothing": nil, "the header": good[:16], "cut off": good[:len(good)-1], "another length": short, "not an advertisement": redirect,
		"no servers": userOpt(3, optRDNSS, 600, body("::")), "no link": userOpt(0, optRDNSS, 600, body("fd00::53")),
		"another option": userOpt(3, 1, 600, body("fd00::53")), "no domains": userOpt(3, optDNSSL, 600, []byte("\x40aaaaaaa")),
		"an escape": userOpt(3, optDNSSL, 600, []byte("\x05a\nb c\x00\x00")),
	} {
		if ad, ok := parseNDUserOpt(b); ok {
			t.Errorf("%s: %+v", name, ad)
		}
	}
}

func TestLearnedEnds(t *testing.T) {
	var l learned[string]
	l.put(noon, time.Minute, 3, "a", "b")
	l.put(noon, time.Hour, 3, "b", "c", "d")
	if !slices.Equal(l.items, []string{"a", "b", "c"}) {
		t.Errorf("%v", l.items)
	}
	l.expire(noon.Add(time.Minute))
	if !slices.Equal(l.items, []string{"b", "c"}) {
		t.Errorf("%v", l.items)
	}
	l.put(noon, 0, 3, "c")
	if !slices.Equal(l.items, []string{"b"}) {
		t.Errorf("%v", l.items)
	}
}

func FuzzParseNDUserOpt(f *testing.F) {
	f.Add(userOpt(3, optRDNSS, 600, body("fd00::53")))
	f.Add(userOpt(3, optDNSSL, 600, []byte("\x03lab\x07example\x00\x00\x00\x00")))
	f.Fuzz(func(t *testing.T, b []byte) {
		ad, ok := parseNDUserOpt(b)
		if !ok {
			return
		}
		if len(ad.dns) > maxServers || len(ad.search) > maxSearch || ad.lifetime < 0 || ad.index <= 0 {
			t.Errorf("%+v", ad)
		}
		for _, a := range ad.dns {
			if !unicast(a) {
				t.Errorf("server %s", a)
			}
		}
		for _, d := range ad.search {
			if !validDomain(d) {
				t.Errorf("domain %q", d)
			}
		}
	})
}

func FuzzParseInet6Link(f *testing.F) {
	f.Add([]byte{10, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 12, 0, 8, 0, 1, 0, 0x60, 0, 0, 0x80})
	f.Fuzz(func(_ *testing.T, b []byte) { parseInet6Link(b) })
}

func TestParseInet6Link(t *testing.T) {
	m := []byte{10, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 12, 0, 8, 0, 1, 0, 0, 0, 0, 0}
	binary.NativeEndian.PutUint32(m[24:], 0x60)
	if index, f, ok := parseInet6Link(m); !ok || index != 3 || !f.seen || !f.managed || f.other {
		t.Errorf("%d %+v %v", index, f, ok)
	}
	for _, n := range []int{0, 15, 16, 19, 23, 27} {
		if _, _, ok := parseInet6Link(m[:n]); ok {
			t.Errorf("%d bytes are taken", n)
		}
	}
}
