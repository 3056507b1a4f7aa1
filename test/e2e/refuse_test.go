package e2e

import (
	"debug/elf"
	"encoding/binary"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
	"github.com/powernode/powernode-agent/test/lab"
)

// TestBootRefuses is about what a node is given: each wrong thing is named, with what to do, and
// the node's records stay as they are.
func TestBootRefuses(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"), app("1"))
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[hostArch]
	foreign := app("1")
	foreign.Name, foreign.Arch = "foreign-machine", other
	p.Publish(foreign)
	broken := base("1")
	broken.Name, broken.Programs = "broken-init", map[string][]byte{"usr/sbin/init": foreignELF()}
	p.Publish(broken)
	text := base("1")
	text.Name, text.Programs = "text-init", map[string][]byte{"usr/sbin/init": []byte("neither program nor script\n")}
	p.Publish(text)

	for _, c := range []struct {
		name    string
		modules []string
		spoil   func(n *node)
		code    int
		wants   []string
	}{
		{"no identity file", nil, func(n *node) { remove(n.t, n.identity) }, 1, []string{"identity.cfg"}},
		{"an identity file that is none", nil, func(n *node) { write(n.t, n.identity, []byte("gibberish\n"), 0o600) }, 1, []string{"identity.cfg", "line 1"}},
		{"an identity without a token", nil, func(n *node) { n.token.Token = ""; n.identify(n.token.PlatformURL, n.token.CAPEM) }, 1, []string{"token"}},
		{"an identity with a plain URL", nil, func(n *node) { n.identify("http://"+p.Listen, n.token.CAPEM) }, 1, []string{"https"}},
		{"no trust policy", nil, func(n *node) { remove(n.t, n.trust) }, 2, []string{"trust.yaml", "--trust-policy"}},
		{"an empty trust policy", nil, func(n *node) { write(n.t, n.trust, nil, 0o644) }, 2, []string{"trust.yaml", "empty"}},
		{"a trust policy without rules", nil, func(n *node) { write(n.t, n.trust, []byte("schema_version: 1\n"), 0o644) }, 2, []string{"no rules"}},
		{"a trust policy without the key's file", nil, func(n *node) { remove(n.t, filepath.Join(filepath.Dir(n.trust), "operator.pub")) }, 2, []string{"operator.pub"}},
		{"a trust policy for other images", nil, func(n *node) { n.trusts(`"registry.example.org/**"`) }, 2, []string{"no rule", "trust policy"}},
		{"a required level that can't be had", nil, func(n *node) {
			write(n.t, n.trust, append([]byte("integrity: enforced\n"), read(n.t, n.trust)...), 0o644)
		}, 6, []string{"enforced", "fs-verity"}},
		{"a used token", nil, func(n *node) {
			s := n.boot()
			s.exit()
			if err := os.RemoveAll(n.state()); err != nil {
				n.t.Fatal(err)
			}
		}, 5, []string{"token", "used"}},
		{"an expired token", nil, func(n *node) {
			n.newToken("--ttl", "1s")
			time.Sleep(1100 * time.Millisecond)
		}, 5, []string{"token", "expired"}},
		{"a token of nobody", nil, func(n *node) {
			n.token.Token = "pnt_" + n.token.Token[4:40]
			n.identify(n.token.PlatformURL, n.token.CAPEM)
		}, 5, []string{"token"}},
		{"another platform's CA", nil, func(n *node) { n.identify(n.token.PlatformURL, string(pkitest.NewCA(n.t, "other").PEM())) }, 5, []string{p.Listen, "CA"}},
		{"a platform that can't be reached", nil, func(n *node) { n.identify("https://"+lab.OwnAddress(n.t), n.token.CAPEM) }, 5, []string{"127.0.0.1:"}},
		{"a platform with an expired certificate", nil, func(n *node) { n.identify(expiredPlatform(n.t)) }, 5, []string{"certificate", "ended", "clock"}},
		{"a platform that is something else", nil, func(n *node) { n.identify(otherServer(n.t)) }, 5, []string{"this platform signs no time", "clock=local"}},
		{"nothing assigned", []string{}, nil, 5, []string{"no modules", "powernode assign"}},
		{"a module for another architecture", []string{"base", "foreign-machine"}, nil, 1, []string{"foreign-machine", other}},
		{"no init in the root", []string{"app"}, nil, 3, []string{"/sbin/init"}},
		{"an init of another machine", []string{"broken-init"}, nil, 3, []string{"/sbin/init", "EM_"}},
		{"an init that is no program", []string{"text-init"}, nil, 3, []string{"/sbin/init"}},
		{"an init of one's own that isn't there", nil, func(n *node) { n.init = []string{"/usr/bin/nothing"} }, 3, []string{"/usr/bin/nothing"}},
		{"an init by a relative path", nil, func(n *node) { n.init = []string{"sbin/init"} }, 3, []string{"sbin/init", "absolute"}},
		{"no persist directory", nil, func(n *node) { n.persist = filepath.Join(n.persist, "missing") }, 3, []string{"missing"}},
		{"a persist directory that is a file", nil, func(n *node) {
			n.persist = filepath.Join(filepath.Dir(n.persist), "file")
			write(n.t, n.persist, nil, 0o600)
		}, 3, []string{"file"}},
		{"a size of nothing", nil, func(n *node) { n.flags = []string{"--upper-size", "many"} }, 3, []string{"--upper-size", "many"}},
		{"an unknown flag", nil, func(n *node) { n.flags = []string{"--persistence", "x"} }, 1, []string{"--persistence", "--help"}},
		{"no persist directory at all", nil, func(n *node) { n.flags = []string{"--persist", ""} }, 1, []string{"persist"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			modules := c.modules
			if modules == nil {
				modules = []string{"base", "app"}
			}
			n := p.on(t).node(nodeName(), modules...)
			if c.spoil != nil {
				c.spoil(n)
			}
			n.refuses(c.code, c.wants...)
		})
	}
}

// TestBootRefusesToBeAnyProcess: on a running system it changes nothing.
func TestBootRefusesToBeAnyProcess(t *testing.T) {
	t.Parallel()
	p := &platform{&lab.Platform{T: t, Key: signingKey(t)}}
	n := p.blankNode(t, "web")
	command(t, "", nil, "powernode-agent", "boot", "--persist", n.persist, "--trust-policy", n.trust).Refused(t, 1, "first process", "--namespace")
	command(t, "", nil, "powernode-agent", "boot", "--namespace", "--persist", n.persist, "--trust-policy", n.trust).Refused(t, 1, "first process")
	if len(n.records()) > 0 {
		t.Error("it made a store")
	}
}

func remove(t testing.TB, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// expiredPlatform returns URL and CA of a server whose certificate has ended.
func expiredPlatform(t testing.TB) (url, ca string) {
	t.Helper()
	authority := pkitest.NewCA(t, "expired")
	certificate := authority.Web()
	certificate.NotBefore, certificate.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)
	mux := http.NewServeMux()
	mux.Handle("POST "+nodeapi.PathTime, authority.Time(nil)) // it knows the time
	return authority.Serve(certificate, mux, nil).URL, string(authority.PEM())
}

// otherServer returns URL and CA of a server that is no platform.
func otherServer(t testing.TB) (url, ca string) {
	t.Helper()
	authority := pkitest.NewCA(t, "other")
	return authority.Serve(authority.Web(), http.NotFoundHandler(), nil).URL, string(authority.PEM())
}

// foreignELF returns the head of a program for arm64, or on arm64 for amd64.
func foreignELF() []byte {
	machine := elf.EM_AARCH64
	if hostArch == "arm64" {
		machine = elf.EM_X86_64
	}
	head := make([]byte, 128)
	copy(head, elf.ELFMAG+"\x02\x01\x01") // 64 bits, little-endian, version 1
	binary.LittleEndian.PutUint16(head[16:], uint16(elf.ET_EXEC))
	binary.LittleEndian.PutUint16(head[18:], uint16(machine))
	return head
}
