package services

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/health/systemd/systemdtest"
	"github.com/powernode/powernode-agent/internal/module"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var begin = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestNext(t *testing.T) {
	policy := HealthPolicy{InitialDelay: 10 * time.Second, Restart: true}
	var now Health
	for i, step := range []struct {
		after      time.Duration
		invocation string
		running    bool
		good       bool
		state      HealthState
		failures   int
		restart    bool
	}{
		{1, "", false, false, HealthStopped, 0, false},
		{2, "a", true, false, HealthStarting, 0, false}, // still in its delay
		{5, "a", true, true, HealthGood, 0, false},
		{6, "a", true, false, HealthFailing, 1, false}, // it was good: the delay is over
		{7, "a", true, true, HealthGood, 0, false},
		{8, "a", true, false, HealthFailing, 1, false},
		{9, "a", true, false, HealthFailing, 2, false},
		{10, "a", true, false, HealthBad, 3, true},
		{11, "a", true, false, HealthBad, 4, false},
		{12, "a", true, false, HealthBad, 5, false},
		{13, "a", true, false, HealthBad, 6, true}, // the restart didn't come about
		{14, "b", true, false, HealthFailing, 1, false},
		{15, "b", false, false, HealthStopped, 0, false},
	} {
		seen := Observation{At: begin.Add(step.after * time.Second), Running: step.running, Invocation: step.invocation, Since: begin, Good: step.good}
		var restart bool
		now, restart = policy.Next(now, seen)
		if now.State != step.state || now.Failures != step.failures || restart != step.restart {
			t.Errorf("step %d: %+v, restart %t", i, now, restart)
		}
	}
	if now.Restarts != 2 || !now.Since.Equal(begin.Add(15*time.Second)) {
		t.Errorf("%+v", now)
	}
	policy.Restart = false
	for range 4 {
		var restart bool
		if now, restart = policy.Next(now, Observation{At: begin.Add(time.Hour), Running: true, Since: begin, Invocation: "c"}); restart {
			t.Error("what is never to be restarted is")
		}
	}
}

func TestParseTarget(t *testing.T) {
	ports := []module.Port{{Port: 53, Protocol: "udp"}, {Port: 8080, Protocol: "tcp"}}
	for _, test := range []struct{ method, endpoint, want string }{
		{"GET", "/healthz", "http://127.0.0.1:8080/healthz"},
		{"GET", "", "http://127.0.0.1:8080/"},
		{"POST", "9/x?y=1", "http://127.0.0.1:9/x?y=1"},
		{"PUT", "https://localhost:8443", "https://127.0.0.1:8443/"},
		{"GET", "http://[::1]:80/x", "http://[::1]:80/x"},
		{"GET", ":81/", "http://127.0.0.1:81/"},
		{"TCP", "", "127.0.0.1:8080"},
		{"TCP", "5432", "127.0.0.1:5432"},
		{"TCP", "tcp://127.0.0.2:1", "127.0.0.2:1"},
		{"EXEC", "/bin/x 'y z'", "/bin/x 'y z'"},
		{"GET", "http://10.0.0.1/", ""},
		{"GET", "http://localhost@10.0.0.1:80/", ""},
		{"GET", "http://127.0.0.1:80@10.0.0.1/", ""},
		{"GET", "http://example.org/", ""},
		{"GET", "ftp://127.0.0.1/", ""},
		{"GET", "http://[::1%25lo]:80/", ""},
		{"GET", ":0/", ""},
		{"GET", ":65536/", ""},
		{"TCP", "127.0.0.1:x", ""},
		{"HEAD", "/", ""},
		{"EXEC", "", ""},
		{"EXEC", "a | b", ""},
	} {
		got, err := ParseTarget(test.method, test.endpoint, ports)
		if err != nil {
			got.Endpoint = ""
		}
		if got.Endpoint != test.want {
			t.Errorf("%s %q: %q, %v", test.method, test.endpoint, got.Endpoint, err)
		}
	}
}

func TestProbe(t *testing.T) {
	away := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("where an answer leads is followed") }))
	defer away.Close()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, away.URL, http.StatusFound)
		case "/slow":
			<-r.Context().Done()
		case "/endless":
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		case "/bad":
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		if r.Method != http.MethodPost {
			t.Errorf("it was asked by %s", r.Method)
		}
	}))
	defer server.Close()
	for path, want := range map[string]string{"/": "200 OK", "/away": "302 Found", "/bad": "503", "/slow": "deadline", "/endless": "200 OK"} {
		within := time.Minute
		if path == "/slow" {
			within = 500 * time.Millisecond
		}
		said, err := Target{"POST", server.URL + path}.Probe(t.Context(), within)
		if err != nil {
			said = err.Error()
		}
		if !strings.Contains(said, want) || (err == nil) != strings.HasSuffix(want, "d") && (err == nil) != strings.HasSuffix(want, "K") {
			t.Errorf("%s: %q, %v", path, said, err)
		}
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	open := Target{"TCP", l.Addr().String()}
	if _, err := open.Probe(t.Context(), time.Minute); err != nil {
		t.Error(err)
	}
	l.Close()
	if _, err := open.Probe(t.Context(), time.Minute); err == nil {
		t.Error("nobody listens, and it is well")
	}
}

func checker(t *testing.T, f *systemdtest.Fake) Checker {
	t.Helper()
	run := t.TempDir()
	f.Start(t, run)
	return Checker{Systemd: systemd.Manager{Run: run}, Run: run, Unit: "powernode-one_a.service", Policy: HealthPolicy{Restart: true}, Now: func() time.Time { return begin }}
}

func TestChecksRestartAndTell(t *testing.T) {
	f := &systemdtest.Fake{Properties: running("powernode-one_a.service")}
	c := checker(t, f)
	for i := range Threshold {
		h, err := c.Record(t.Context(), "exit-code", "exited", "7")
		if bad := i == Threshold-1; (err != nil) != bad || (h.State == HealthBad) != bad || h.Detail != "exit code 7" {
			t.Errorf("check %d: %+v, %v", i, h, err)
		}
		if err != nil && (fault.AreaOf(err) != fault.Service || !strings.Contains(err.Error(), "exit code 7")) {
			t.Error(err)
		}
	}
	if diff := cmp.Diff([]string{"TryRestartUnit powernode-one_a.service"}, f.Asked()); diff != "" {
		t.Error(diff)
	}
	// A record that is no record doesn't stop the checks.
	if err := os.WriteFile(filepath.Join(c.Run, healthDir, c.Unit+".json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, end := range [][3]string{{"success", "exited", "0"}, {"timeout", "killed", "TERM"}, {"signal", "killed", "SEGV"}, {"resources", "", ""}} {
		if h, err := c.Record(t.Context(), end[0], end[1], end[2]); err != nil && h.State != HealthBad || (h.State == HealthGood) != (end[2] == "0") {
			t.Errorf("%q: %+v, %v", end, h, err)
		}
	}
	f.Set(func(f *systemdtest.Fake) { f.Properties[c.Unit]["ActiveState"] = "inactive" })
	if h, err := c.Check(t.Context(), Target{"TCP", "127.0.0.1:1"}, time.Second); err != nil || h.State != HealthStopped {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestWait(t *testing.T) {
	f := &systemdtest.Fake{Properties: running("powernode-one_a.service")}
	c := checker(t, f)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	// Good health of an earlier run of the service is none of this one.
	if err := writeRecord(c.Run, healthDir, c.Unit, Health{State: HealthGood, Invocation: "00"}); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(ctx, time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if _, err := c.Record(t.Context(), "success", "exited", "0"); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(t.Context(), time.Millisecond); err != nil {
		t.Error(err)
	}
}

func TestEgressNext(t *testing.T) {
	a, b, c := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::1")
	fixed := []netip.Addr{netip.MustParseAddr("198.51.100.1")}
	answers := func(addresses ...netip.Addr) map[string]Answer {
		return map[string]Answer{"n": {Addresses: addresses}}
	}
	mapped := netip.MustParseAddr("::ffff:192.0.2.1")
	e := Egress{Unit: "u"}.Next(fixed, answers(mapped, netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::"), netip.MustParseAddr("ff02::1")), begin)
	if diff := cmp.Diff([]string{"192.0.2.1", "198.51.100.1"}, texts(e.Allowed)); diff != "" {
		t.Error(diff)
	}
	// Those of earlier answers count for an hour, and as long as no answer comes.
	e = e.Next(fixed, answers(b, c), begin.Add(59*time.Minute))
	if diff := cmp.Diff([]string{"192.0.2.1", "192.0.2.2", "198.51.100.1", "2001:db8::1"}, texts(e.Allowed)); diff != "" {
		t.Error(diff)
	}
	e = e.Next(fixed, map[string]Answer{"n": {Err: errors.New("no such host")}}, begin.Add(9*time.Hour))
	if len(e.Allowed) != 4 || e.Failed["n"] == "" {
		t.Errorf("%+v", e)
	}
	e = e.Next(fixed, answers(a), begin.Add(10*time.Hour))
	if diff := cmp.Diff([]string{"192.0.2.1", "198.51.100.1"}, texts(e.Allowed)); diff != "" || len(e.Failed) > 0 {
		t.Error(diff)
	}
	var many []netip.Addr
	for next := a; len(many) < 500; next = next.Next() {
		many = append(many, next)
	}
	if e = e.Next(nil, answers(many...), begin.Add(11*time.Hour)); len(e.Allowed) != addressesMax || len(e.Names["n"]) != addressesMax {
		t.Errorf("%d addresses", len(e.Allowed))
	}
	// A name that is asked for no more leaves nothing.
	if e = e.Next(nil, nil, begin.Add(11*time.Hour)); len(e.Allowed) != 0 || len(e.Names) != 0 {
		t.Errorf("%+v", e)
	}
}

func texts(addresses []netip.Addr) []string {
	var out []string
	for _, a := range addresses {
		out = append(out, a.String())
	}
	return out
}

type names map[string][]netip.Addr

// LookupNetIP implements Resolver.
func (n names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if a, ok := n[host]; ok {
		return a, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func TestRefresh(t *testing.T) {
	f := &systemdtest.Fake{}
	c := checker(t, f)
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolv, []byte("# x\nnameserver 203.0.113.53\nnameserver fe80::1%eth0\nnameserver no\nsearch a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := Refresher{
		Resolver: names{"a.example": {netip.MustParseAddr("192.0.2.1")}}, Peers: systemd.Manager{Run: c.Run}, Run: c.Run, ResolvConf: resolv,
		Unit: c.Unit, Addresses: []netip.Addr{netip.MustParseAddr("198.51.100.7")}, Names: []string{"a.example", "b.example"}, Now: func() time.Time { return begin },
	}
	for range 2 {
		e, err := r.Refresh(t.Context())
		want := []string{"192.0.2.1", "198.51.100.7", "203.0.113.53", "fe80::1"}
		if diff := cmp.Diff(want, texts(e.Allowed)); diff != "" || err != nil || len(e.Failed) != 1 {
			t.Errorf("%+v, %v\n%s", e, err, diff)
		}
	}
	if asked := f.Asked(); len(asked) != 2 || !strings.Contains(asked[0], "SetUnitProperties powernode-one_a.service true") || !strings.Contains(asked[0], "[0x7f, 0x0, 0x0, 0x0], 8") {
		t.Errorf("%q", asked)
	}
	f.Set(func(f *systemdtest.Fake) { f.Refuse = "no such unit" })
	if _, err := r.Refresh(t.Context()); err == nil {
		t.Error("systemd's no is lost")
	}
}

func TestJournalTail(t *testing.T) {
	long := &tail{limit: 64}
	for range 100 {
		if _, err := long.Write([]byte("a line \x1b[31m\n")); err != nil {
			t.Fatal(err)
		}
	}
	lines := lastLines(long.data)
	if len(lines) == 0 || len(lines) > logLines || strings.Contains(strings.Join(lines, ""), "\x1b") {
		t.Errorf("%q", lines)
	}
	if _, err := Journal(t.Context(), "--all"); err == nil {
		t.Error("an option is taken for a unit")
	}
}

func TestProbeNode(t *testing.T) {
	root := t.TempDir()
	if n := ProbeNode(root, agentPath, []string{"m"}); n.AppArmor || n.SELinux || n.Agent != agentPath || len(n.Privileged) != 1 {
		t.Errorf("%+v", n)
	}
	dir := filepath.Join(root, "sys/module/apparmor/parameters")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{"Y\n": true, "N\n": false, "": false} {
		if err := os.WriteFile(filepath.Join(dir, "enabled"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if n := ProbeNode(root, "", nil); n.AppArmor != want {
			t.Errorf("%q: %+v", text, n)
		}
	}
	if n := ProbeNode(root, "", nil); n.Profiles != nil {
		t.Errorf("%q without the kernel's list", n.Profiles)
	}
	security := filepath.Join(root, "sys/kernel/security/apparmor")
	if err := os.MkdirAll(security, 0o755); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{"": "map[]", "/usr/bin/man (enforce)\na//b (c) (complain)\n\n": "map[/usr/bin/man:enforce a//b (c):complain]"} {
		if err := os.WriteFile(filepath.Join(security, "profiles"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if n := ProbeNode(root, "", nil); n.Profiles == nil || fmt.Sprint(n.Profiles) != want {
			t.Errorf("%q of %q", n.Profiles, text)
		}
	}
	if err := os.MkdirAll(filepath.Join(root, "sys/fs/selinux"), 0o755); err != nil {
		t.Fatal(err)
	}
	if n := ProbeNode(root, "", nil); !n.SELinux {
		t.Error("SELinux isn't seen")
	}
}
