package api

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

func TestAddressLimiter(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	l := newAddressLimiter(3, time.Second, func() time.Time { return now })
	ask := func(from string) bool {
		t.Helper()
		wait, ok := l.allow(&http.Request{RemoteAddr: from})
		if ok != (wait == 0) || wait < 0 || wait > time.Second {
			t.Errorf("%s: wait %s, %v", from, wait, ok)
		}
		return ok
	}
	for i, want := range []bool{true, true, true, false, false} {
		if ask("192.0.2.1:1000") != want {
			t.Errorf("call %d: not %v", i, want)
		}
	}
	if !ask("192.0.2.2:1000") || ask("[::ffff:192.0.2.1]:7") {
		t.Error("addresses aren't told apart")
	}
	now = now.Add(time.Second)
	if !ask("192.0.2.1:1") || ask("192.0.2.1:2") {
		t.Error("not one more after the interval")
	}
	for i := range 3 {
		if !ask(fmt.Sprintf("[2001:db8::%d]:1", i)) {
			t.Error(i)
		}
	}
	if ask("[2001:db8::ffff]:1") || !ask("[2001:db8:0:1::1]:1") {
		t.Error("an IPv6 network isn't one address")
	}
	// A clock that is set back by a year locks nobody out for a year.
	now = now.Add(-365 * 24 * time.Hour)
	if !ask("192.0.2.1:1") {
		t.Error("locked out by a clock that was set back")
	}
	// Many addresses fill neither the memory nor each other's allowance.
	for i := range 2 * maxAddresses {
		l.allow(&http.Request{RemoteAddr: fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&0xff, i&0xff)})
	}
	if len(l.free) > maxAddresses+1 {
		t.Errorf("%d addresses are remembered", len(l.free))
	}
	now = now.Add(time.Minute)
	if !ask("198.51.100.1:1") || len(l.free) > 1 {
		t.Errorf("%d addresses are remembered after a minute", len(l.free))
	}
	if !ask("nonsense") {
		t.Error("what isn't an address has no allowance")
	}
}

func TestClaimNetworks(t *testing.T) {
	for remote, want := range map[string][2]string{
		"192.0.2.1:7":                {"192.0.2.1/32", "192.0.2.1/32"},
		"[::ffff:192.0.2.1]:7":       {"192.0.2.1/32", "192.0.2.1/32"},
		"[2001:db8:1:2ff:a:b:c:d]:7": {"2001:db8:1:2ff::/64", "2001:db8:1:200::/56"},
		"[fe80::1%eth0]:7":           {"fe80::/64", "fe80::/56"},
		"nonsense":                   {"nonsense", "nonsense"},
	} {
		network, site := claimNetworks(&http.Request{RemoteAddr: remote})
		if network != want[0] || site != want[1] {
			t.Errorf("%s: %s, %s", remote, network, site)
		}
	}
}
