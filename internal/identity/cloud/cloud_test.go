package cloud

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/identity"
)

const (
	instance = "0f8fad5b-d9cb-469f-a165-70867728950e"
	token    = "n0GmqvG1YVqXbU5Fqk3v3mXv1mB8b7VnV2m1gY0oT9A"
	lines    = "ID=" + instance + "\nKEY=" + token + "\nSERVER=https://10.0.0.1:8443\n"
)

var _ identity.Remote = Source{}

func names() []string {
	var out []string
	for _, s := range Sources(Options{}) {
		out = append(out, s.Name())
	}
	return out
}

func find(t *testing.T, s Source) (identity.Found, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // its own limit is less
	defer cancel()
	return s.Find(ctx)
}

// soon is find for what is never answered well: it has no reason to try for ten seconds, and ends when the same is asked for the second time.
func soon(t *testing.T, s Source) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	network, first := newClient(s.provider, s.transport).http.Transport, ""
	s.transport = transport(func(r *http.Request) (*http.Response, error) {
		switch asked := r.Method + " " + r.URL.String(); first {
		case "":
			first = asked
		case asked:
			cancel()
			return nil, context.Canceled
		}
		return network.RoundTrip(r)
	})
	found, err := s.Find(ctx)
	if err == nil || errors.Is(err, identity.ErrNotFound) {
		t.Fatalf("found %v, %v", found.Where, err)
	}
	return err
}

func TestFind(t *testing.T) {
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, err := z.Write([]byte(lines))
	must(t, errors.Join(err, z.Close()))
	paths := map[string][]string{
		AWS:          {"PUT /latest/api/token", "GET /latest/user-data"},
		GCP:          {"GET /computeMetadata/v1/instance/attributes/user-data"},
		Azure:        {"GET /metadata/instance/compute/userData?api-version=2021-01-01&format=text"},
		DigitalOcean: {"GET /metadata/v1/user-data"},
		Hetzner:      {"GET /hetzner/v1/userdata"},
	}
	for _, name := range names() {
		for form, data := range map[string]string{"lines": lines, "gzip": zipped.String(), "base64": base64.StdEncoding.EncodeToString(zipped.Bytes())} {
			t.Run(name+", "+form, func(t *testing.T) {
				s := &service{userData: []byte(data)}
				s.serve(t)
				source := on(t, name)
				if here, why := source.Here(); !here || why != "the firmware says "+source.provider.title {
					t.Errorf("here %v: %s", here, why)
				}
				found, err := find(t, source)
				must(t, err)
				if found.InstanceID != instance || found.Token.Reveal() != token || found.PlatformURL != "https://10.0.0.1:8443" {
					t.Errorf("%+v", found)
				}
				if _, path, _ := strings.Cut(paths[name][len(paths[name])-1], " "); found.Where != "http://169.254.169.254"+path {
					t.Errorf("it is from %s", found.Where)
				}
				if d := cmp.Diff(paths[name], s.requests()); d != "" {
					t.Error(d)
				}
			})
		}
	}
}

func TestNothingForUs(t *testing.T) {
	for _, name := range names() {
		for what, data := range map[string][]byte{
			"none": nil, "empty": {}, "a script": []byte("#!/bin/sh\necho hello\n"), "another's": []byte("#cloud-config\npackages: [nginx]\n"),
		} {
			t.Run(name+", "+what, func(t *testing.T) {
				(&service{userData: data}).serve(t)
				found, err := find(t, on(t, name))
				if !errors.Is(err, identity.ErrNotFound) {
					t.Fatalf("%v, %v", found.Where, err)
				}
				if data == nil && name != Azure && !strings.Contains(err.Error(), "has no user-data") {
					t.Error(err)
				}
			})
		}
	}
}

func TestDamagedUserData(t *testing.T) {
	for _, name := range names() {
		t.Run(name, func(t *testing.T) {
			(&service{userData: []byte("KEY=hidden hidden\nSERVER=http://10.0.0.1")}).serve(t)
			_, err := find(t, on(t, name))
			if err == nil || errors.Is(err, identity.ErrNotFound) || fault.KindOf(err) != fault.Refuse {
				t.Fatal(err)
			}
			if strings.Contains(err.Error(), "hidden") {
				t.Errorf("the error shows a value: %v", err)
			}
		})
	}
}

// TestWrongAnswers: what is said plainly is believed at once; nothing is asked twice.
func TestWrongAnswers(t *testing.T) {
	const page = "<!DOCTYPE html>\n<html><body>Log in to the network</body></html>"
	header := func(name, value string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set(name, value)
			w.Header().Set("Metadata-Flavor", "Google")
			status := http.StatusFound
			if name != "Location" {
				status = http.StatusOK
			}
			w.WriteHeader(status)
			return true
		}
	}
	answer := func(status int, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Metadata-Flavor", "Google")
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
			return true
		}
	}
	elsewhere := new(atomic.Int32)
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	for _, c := range []struct {
		what   string
		clouds []string
		before func(http.ResponseWriter, *http.Request) bool
		why    string
	}{
		{"400", names(), answer(400, "bad"), "the answer is 400 Bad Request"},
		{"401", names(), answer(401, ""), "the answer is 401 Unauthorized"},
		{"403", names(), answer(403, page), "the answer is 403 Forbidden"},
		{"405", names(), answer(405, ""), "the answer is 405"},
		{"a redirect here", names(), header("Location", "/latest/other"), "sends us elsewhere"},
		{"a redirect elsewhere", names(), header("Location", other.URL), "sends us elsewhere"},
		{"a web page", []string{GCP, DigitalOcean, Hetzner}, answer(200, page), "is a web page"},
		{"a web page", []string{AWS}, answer(200, page), "isn't a session token"},
		{"a web page", []string{Azure}, answer(200, page), "isn't in base64"},
		{"no token", []string{AWS}, answer(200, ""), "isn't a session token"},
		{"a token of two lines", []string{AWS}, answer(200, "a\r\nX-Other: b"), "isn't a session token"},
		{"a token without end", []string{AWS}, answer(200, strings.Repeat("a", 1<<11)), "isn't a session token"},
		{"another's answer", []string{GCP}, func(w http.ResponseWriter, _ *http.Request) bool {
			_, _ = w.Write([]byte(lines))
			return true
		}, "lacks Metadata-Flavor"},
		{"another's not found", []string{GCP}, func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusNotFound)
			return true
		}, "lacks Metadata-Flavor"},
		{"a token that isn't taken", []string{AWS}, func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPut {
				_, _ = w.Write([]byte("another"))
				return true
			}
			return false
		}, "the answer is 401"},
		{"too large", []string{GCP, DigitalOcean, Hetzner}, answer(200, strings.Repeat("a ", 64<<10)), "is larger than"},
		{"too large a little", []string{GCP, DigitalOcean, Hetzner}, answer(200, strings.Repeat("a", 64<<10+1)), "larger than 65536 bytes"},
		{"a bomb", []string{Hetzner}, answer(200, bomb(t)), "when it is unpacked"},
	} {
		for _, name := range c.clouds {
			t.Run(name+", "+c.what, func(t *testing.T) {
				s := &service{userData: []byte(lines), before: c.before}
				s.serve(t)
				_, err := find(t, on(t, name))
				if err == nil || errors.Is(err, identity.ErrNotFound) || !strings.Contains(err.Error(), c.why) {
					t.Fatalf("%v, want %q", err, c.why)
				}
				if n := len(s.requests()); n > 2 || n == 2 && s.requests()[0] == s.requests()[1] {
					t.Errorf("it was asked again: %q", s.requests())
				}
			})
		}
	}
	if n := elsewhere.Load(); n != 0 {
		t.Errorf("a redirect was followed %d times", n)
	}
}

func bomb(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(make([]byte, 32<<20))
	must(t, errors.Join(err, z.Close()))
	return b.String()
}

// TestStarting: what may pass is asked again.
func TestStarting(t *testing.T) {
	for _, status := range []int{404, 408, 410, 429, 500, 502, 503} {
		for _, name := range names() {
			if name != Azure && status != 404 && status != 503 {
				continue // they are one line of the code for all
			}
			t.Run(fmt.Sprint(name, " ", status), func(t *testing.T) {
				var n atomic.Int32
				s := &service{userData: []byte(lines)}
				s.before = func(w http.ResponseWriter, r *http.Request) bool {
					if n.Add(1) > 2 {
						return false
					}
					w.Header().Set("Metadata-Flavor", "Google")
					w.WriteHeader(status)
					return true
				}
				s.serve(t)
				found, err := find(t, on(t, name))
				must(t, err)
				if found.InstanceID != instance {
					t.Errorf("%+v", found)
				}
			})
		}
	}
}

// TestVersion1: a service that gives no token isn't asked without one.
func TestVersion1(t *testing.T) {
	s := &service{userData: []byte(lines), before: func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			http.NotFound(w, r)
		} else {
			send(w, http.StatusOK, "text/plain", lines)
		}
		return true
	}}
	s.serve(t)
	err := soon(t, on(t, AWS))
	if !strings.Contains(err.Error(), "404") || !strings.Contains(fault.HintOf(err), "version 1 isn't used") {
		t.Errorf("%v (%s)", err, fault.HintOf(err))
	}
	for _, r := range s.requests() {
		if r != "PUT /latest/api/token" {
			t.Errorf("it was asked for %s without a token", r)
		}
	}
}

// TestBrokenConnections speaks the service's side byte for byte.
func TestBrokenConnections(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\n"
	endless := func(head, body string) func(net.Conn, string) {
		return func(c net.Conn, _ string) {
			_, err := c.Write([]byte(head))
			for err == nil {
				_, err = c.Write([]byte(body))
			}
		}
	}
	for _, c := range []struct {
		what string
		f    func(c net.Conn, request string)
		why  string
		once bool // it is plain at once, and ten seconds needn't pass
	}{
		{"closes", func(net.Conn, string) {}, "EOF", false},
		{"is no HTTP", func(c net.Conn, _ string) { fmt.Fprint(c, "SSH-2.0-OpenSSH_9.2\r\n") }, "malformed HTTP", false},
		{"says too much", func(c net.Conn, _ string) { fmt.Fprint(c, ok+"Content-Length: 10\r\n\r\n") }, "unexpected EOF", false},
		{"says a lot", func(c net.Conn, _ string) { fmt.Fprint(c, ok+"Content-Length: 99999999999\r\n\r\n") }, "larger than", true},
		{"says less than nothing", func(c net.Conn, _ string) { fmt.Fprint(c, ok+"Content-Length: -1\r\n\r\n") }, "bad Content-Length", false},
		{"says two lengths", func(c net.Conn, _ string) { fmt.Fprint(c, ok+"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab") }, "Content-Length", false},
		{"endless body", endless(ok+"\r\n", strings.Repeat("a", 4<<10)), "larger than", true},
		{"endless chunks", endless(ok+"Transfer-Encoding: chunked\r\n\r\n", "4\r\naaaa\r\n"), "larger than", true},
		{"endless header", endless(ok, "X-More: "+strings.Repeat("a", 1<<10)+"\r\n"), "exceeded", false},
		{"endless line", endless(ok, strings.Repeat("a", 4<<10)), "exceeded", false},
		{"endless interim answers", endless("", "HTTP/1.1 103 Early Hints\r\n\r\n"), "", false},
		{"says nothing", func(c net.Conn, _ string) { _, _ = c.Read(make([]byte, 1)) }, "no answer, or not all of it", false},
		{"drips", func(c net.Conn, _ string) {
			_, err := c.Write([]byte(ok + "Content-Length: 1000\r\n\r\n"))
			for err == nil {
				time.Sleep(10 * time.Millisecond)
				_, err = c.Write([]byte("a"))
			}
		}, "no answer, or not all of it", false},
	} {
		t.Run(c.what, func(t *testing.T) {
			serveRaw(t, c.f)
			err := soon(t, on(t, GCP))
			if !strings.Contains(err.Error(), c.why) {
				t.Errorf("%v, want %q", err, c.why)
			}
			if kind := fault.KindOf(err); (kind == fault.Refuse) != c.once {
				t.Errorf("%v of kind %v", err, kind)
			}
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		if err := soon(t, on(t, GCP)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
	})
}

// TestNoPacket: a machine that isn't in a cloud sends nothing at all, whatever else it is.
func TestNoPacket(t *testing.T) {
	s := &service{userData: []byte(lines)}
	s.serve(t)
	packets := newSniffer(t)
	for name, files := range map[string]map[string]string{
		"nothing":              nil,
		"QEMU":                 {"class/dmi/id/sys_vendor": "QEMU", "class/dmi/id/product_name": "Standard PC (Q35 + ICH9, 2009)"},
		"Hyper-V":              {"class/dmi/id/sys_vendor": "Microsoft Corporation", "class/dmi/id/product_name": "Virtual Machine", "class/dmi/id/chassis_asset_tag": "1234-5678"},
		"Xen":                  {"class/dmi/id/sys_vendor": "Xen", "class/dmi/id/product_name": "HVM domU", "class/dmi/id/product_version": "4.17.2", "hypervisor/uuid": "3ec2ab00-0000-0000-0000-000000000000"},
		"a laptop of Google's": {"class/dmi/id/sys_vendor": "Google", "class/dmi/id/product_name": "Eve", "class/dmi/id/bios_vendor": "coreboot"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, source := range Sources(Options{Sys: sysfs(t, files)}) {
				if here, why := source.Here(); here || !strings.HasPrefix(why, "the firmware doesn't say") {
					t.Errorf("%s: here %v: %s", source.Name(), here, why)
				}
				if _, err := find(t, source); !errors.Is(err, identity.ErrNotFound) {
					t.Errorf("%s: %v", source.Name(), err)
				}
			}
			if n := packets.packets(t); n != 0 {
				t.Errorf("%d packets were sent", n)
			}
		})
	}
	// The last of them, so that what closes its connection isn't taken for another's.
	for _, source := range Sources(Options{Sys: t.TempDir(), Ask: []string{Hetzner}}) {
		if here, why := source.Here(); here != (source.Name() == Hetzner) {
			t.Errorf("%s: here %v: %s", source.Name(), here, why)
		}
		_, err := find(t, source)
		if sent := packets.packets(t) > 0; sent != (err == nil) || sent != (source.Name() == Hetzner) {
			t.Errorf("%s, when Hetzner was asked for: packets %v, %v", source.Name(), sent, err)
		}
	}
}

// TestNoProxy: what the environment says of proxies isn't read.
func TestNoProxy(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the proxy was asked") }))
	defer proxy.Close()
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "ALL_PROXY"} {
		t.Setenv(name, proxy.URL)
	}
	(&service{userData: []byte(lines)}).serve(t)
	for _, name := range names() {
		if _, err := find(t, on(t, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOnlyLinkLocal(t *testing.T) {
	for _, to := range []string{"169.254.169.253:80", "169.254.169.254:8080", "127.0.0.1:80", "10.0.0.1:80", "metadata:80", "169.254.169.254"} {
		if onlyLinkLocal("tcp4", to, nil) == nil {
			t.Errorf("%s is allowed", to)
		}
	}
	if onlyLinkLocal("tcp6", "[::ffff:169.254.169.254]:80", nil) == nil || onlyLinkLocal("udp4", "169.254.169.254:80", nil) == nil {
		t.Error("another protocol is allowed")
	}
	if err := onlyLinkLocal("tcp4", "169.254.169.254:80", nil); err != nil {
		t.Error(err)
	}
}

func TestMachines(t *testing.T) {
	for name, c := range map[string]struct {
		m    Machine
		want string
	}{
		"Nitro":           {Machine{SysVendor: "Amazon EC2", ProductName: "t3.micro"}, AWS},
		"Nitro, BIOS":     {Machine{BIOSVendor: "Amazon EC2"}, AWS},
		"Nitro, tag":      {Machine{BoardAssetTag: "i-0af01c0123456789a"}, AWS},
		"old tag":         {Machine{BoardAssetTag: "i-0af01c01"}, AWS},
		"another's tag":   {Machine{BoardAssetTag: "i-7700"}, ""},
		"Xen HVM":         {Machine{SysVendor: "Xen", ProductName: "HVM domU", ProductVersion: "4.11.amazon"}, AWS},
		"Xen PV":          {Machine{HypervisorUUID: "ec2e1916-9099-7caf-fd21-012345abcdef"}, AWS},
		"Xen, upper case": {Machine{HypervisorUUID: "EC2E1916-9099-7CAF-FD21-012345ABCDEF"}, AWS},
		"Google":          {Machine{SysVendor: "Google", ProductName: "Google Compute Engine"}, GCP},
		"Azure":           {Machine{SysVendor: "Microsoft Corporation", ChassisAssetTag: "7783-7084-3265-9085-8269-3286-77"}, Azure},
		"Hyper-V":         {Machine{SysVendor: "Microsoft Corporation", ProductName: "Virtual Machine"}, ""},
		"DigitalOcean":    {Machine{SysVendor: "DigitalOcean", ProductName: "Droplet"}, DigitalOcean},
		"Hetzner":         {Machine{SysVendor: "Hetzner", ProductName: "vServer"}, Hetzner},
		"like Hetzner":    {Machine{SysVendor: "Hetzner GmbH"}, ""},
		"empty":           {Machine{}, ""},
	} {
		var got []string
		for _, s := range Sources(Options{}) {
			if s.provider.is(c.m) {
				got = append(got, s.Name())
			}
		}
		if want := strings.Fields(c.want); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestReadMachine(t *testing.T) {
	m := ReadMachine(sysfs(t, map[string]string{
		"class/dmi/id/sys_vendor": " Xen ", "class/dmi/id/product_name": "HVM domU", "class/dmi/id/product_version": "4.11.amazon",
		"class/dmi/id/bios_vendor": "Xen", "class/dmi/id/chassis_asset_tag": "", "class/dmi/id/board_asset_tag": strings.Repeat("x", 1000), "hypervisor/uuid": "ec2",
	}))
	want := Machine{SysVendor: "Xen", ProductName: "HVM domU", ProductVersion: "4.11.amazon", BIOSVendor: "Xen", BoardAssetTag: strings.Repeat("x", 256), HypervisorUUID: "ec2"}
	if m != want {
		t.Errorf("%+v", m)
	}
}

// TestResolver: of all clouds only the machine's own is asked, and a machine in none waits for no
// network.
func TestResolver(t *testing.T) {
	s := &service{userData: []byte(lines)}
	s.serve(t)
	packets := newSniffer(t)
	for _, name := range []string{"none", Azure} {
		files := machines[name]
		t.Run(name, func(t *testing.T) {
			var sources []identity.Source
			for _, source := range Sources(Options{Sys: sysfs(t, files)}) {
				sources = append(sources, source)
			}
			waited := 0
			id, reports, err := identity.Resolver{Sources: sources, BeforeRemote: func(context.Context) error {
				waited++
				return nil
			}}.Resolve(t.Context())
			if err == nil {
				t.Error("an identity without a CA is complete")
			}
			for _, r := range reports {
				want := identity.StatusAbsent
				if r.Source == name {
					want = identity.StatusFound
				}
				if r.Status != want {
					t.Errorf("%s: %s: %s", r.Source, r.Status, r.Reason)
				}
			}
			sent := packets.packets(t) > 0
			if in := name != "none"; sent != in || (waited == 1) != in || (id.From.Token == name) != in {
				t.Errorf("packets %v, waited %d times, the token is from %q", sent, waited, id.From.Token)
			}
		})
	}
}
