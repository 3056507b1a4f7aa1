package vm

import (
	"crypto/tls"
	"database/sql"
	"encoding/binary"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the platform's database

	"github.com/powernode/powernode-agent/initramfs"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/platform/ca"
	"github.com/powernode/powernode-agent/test/lab"
	"github.com/powernode/powernode-agent/test/lab/qemu"
)

// unsign takes the signatures of a module's images away.
func (p *platform) unsign(m lab.Published) {
	p.T.Helper()
	p.Stop()
	db, err := sql.Open("sqlite", filepath.Join(p.Dir, "platform.db"))
	if err != nil {
		p.T.Fatal(err)
	}
	for _, i := range m.Images {
		// There are two forms: under a tag, and of the referrers API.
		_, err := db.Exec(`DELETE FROM registry_tags WHERE tag LIKE ?`, strings.Replace(i.Digest, ":", "-", 1)+"%")
		if err != nil {
			p.T.Fatal(err)
		}
		done, err := db.Exec(`DELETE FROM registry_manifests WHERE subject = ?`, i.Digest)
		if err != nil {
			p.T.Fatal(err)
		}
		if n, err := done.RowsAffected(); err != nil || n == 0 {
			p.T.Fatalf("%d signatures, %v", n, err)
		}
	}
	if err := db.Close(); err != nil {
		p.T.Fatal(err)
	}
	p.Start()
}

// failing is a server in the platform's place that answers 500 to everything, with a certificate of the
// platform's authority.
func (p *platform) failing() (stop func()) {
	p.T.Helper()
	dir, err := durable.OpenDir(filepath.Join(p.Dir, "ca"), nil)
	if err != nil {
		p.T.Fatal(err)
	}
	defer dir.Close()
	authority, err := ca.Open(dir, time.Now)
	if err != nil {
		p.T.Fatal(err)
	}
	certificate, err := authority.NewServerCertificate([]string{hostAddress})
	if err != nil {
		p.T.Fatal(err)
	}
	listener, err := tls.Listen("tcp", p.Listen, &tls.Config{GetCertificate: certificate.GetCertificate, NextProtos: []string{"http/1.1"}})
	if err != nil {
		p.T.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: qemu.Patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "out of order", http.StatusInternalServerError)
	})}
	go func() { _ = server.Serve(listener) }() // until it is closed
	stop = func() { _ = server.Close() }
	p.T.Cleanup(stop)
	return stop
}

// TestPlatformOutOfOrder: with a platform that answers 500 to everything a node runs what it ran, and a new
// one waits: when the platform is well again, it boots by itself.
func TestPlatformOutOfOrder(t *testing.T) {
	whole(t)
	p := newPlatform(t)
	p.Publish(base(t, "1"))
	p.Publish(app("1"))
	n := p.node("error", "base", "app")
	p.Stop()
	stop := p.failing()
	s := n.start()
	s.WaitLine(`500.*trying again in`)
	// It asks for four minutes before it calls that a failure.
	s.WaitLine(`This machine can't boot: .*500`)
	s.WaitLine(`What to do: `)
	s.WaitLine(n.token.PlatformURL)
	stop()
	p.Start()
	s.WaitInit()
	s.good()
	root := s.runs(1, "1").RootDigest
	s.PowerOff()

	p.Stop()
	p.failing()
	s = n.boot()
	s.says("500", "staying with generation 1")
	if doc := s.runs(1, "1"); doc.RootDigest != root {
		t.Errorf("root %s, not %s", doc.RootDigest, root)
	}
	s.PowerOff()
}

// nameServer answers every question for an IPv4 address with that of the host.
func nameServer(t testing.TB) (stop func()) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return // it was stopped
			}
			if answer := nameAnswer(buf[:n]); answer != nil {
				_, _ = conn.WriteTo(answer, from) // whoever asked asks again
			}
		}
	}()
	stop = func() { _ = conn.Close() }
	t.Cleanup(stop)
	return stop
}

// nameAnswer answers a question (RFC 1035, 4.1).
func nameAnswer(question []byte) []byte {
	const header = 12
	end := header
	for end < len(question) && question[end] != 0 {
		end += 1 + int(question[end])
	}
	end += 5 // the root, type and class
	if end > len(question) {
		return nil
	}
	answer := append([]byte(nil), question[:end]...)
	// A response, recursion available; one question, and nothing else so far.
	copy(answer[2:], []byte{0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0})
	const typeA = 1
	if binary.BigEndian.Uint16(question[end-4:]) == typeA {
		answer[7] = 1
		answer = append(answer, 0xc0, header, 0, typeA, 0, 1, 0, 0, 0, 1, 0, 4)
		answer = append(answer, net.ParseIP(hostAddress).To4()...)
	}
	return answer
}

// TestNoNames: a platform that is known by a name which can't be resolved is an outage like any other.
func TestNoNames(t *testing.T) {
	whole(t)
	need(t)
	stop := nameServer(t)
	const name = "platform.test"
	port := freePort(t)
	p := &platform{&lab.Platform{
		T: t, Dir: filepath.Join(lab.TempDir(t), "platform"), Listen: "0.0.0.0:" + port, Key: lab.SigningKey(t),
		Flags: []string{"--public-url", "https://" + name + ":" + port},
	}}
	p.Config = filepath.Join(p.Dir, "operator.json")
	p.Start()
	b := base(t, "1")
	b.Files["etc/resolv.conf"] = "nameserver 10.0.2.3\n" // as a system's own network manager would have it
	p.Publish(b)
	p.Publish(app("1"))
	n := p.node("nameless", "base", "app")
	trust, path := lab.TempDir(t), filepath.Join(lab.TempDir(t), "initramfs")
	p.Trust(t, trust, `"`+name+`:*/modules/*"`, "integrity: enforced\n")
	writeInitramfs(t, path, initramfs.Spec{Init: lab.Program("powernode-agent"), KernelDir: qemu.KernelDir(t), Trust: trust})
	n.machine.Initramfs = path

	stop()
	s := n.start()
	s.WaitLine(name + `.*trying again in`)
	stop = nameServer(t)
	s.WaitInit()
	s.good()
	s.runs(1, "1")
	s.PowerOff()

	stop()
	s = n.boot()
	s.says(name, "staying with generation 1")
	s.runs(1, "1")
	s.PowerOff()
}

// TestLostCredentials: a node whose credentials are gone runs what it ran, and is enrolled again by a new
// token.
func TestLostCredentials(t *testing.T) {
	whole(t)
	p := newPlatform(t)
	p.Publish(base(t, "1"))
	p.Publish(app("1"))
	n := p.node("stranger", "base", "app")
	s := n.boot()
	s.good()
	s.PowerOff()
	n.truncate("pki/credentials.json")
	p.Publish(app("2"))
	s = n.boot()
	s.says("token", "staying with generation 1")
	if doc := s.runs(1, "1"); doc.InStep && len(doc.Remarks) == 0 {
		t.Error("status says nothing of it")
	}
	s.PowerOff()
	n.newToken()
	s = n.boot()
	s.good()
	if doc := s.runs(2, "2"); !doc.InStep || strings.Contains(strings.Join(doc.Remarks, "\n"), "token") {
		t.Errorf("in step %t, reasons %q, remarks %q", doc.InStep, doc.Reasons, doc.Remarks)
	}
	s.PowerOff()
}
