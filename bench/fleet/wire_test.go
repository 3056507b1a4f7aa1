package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodeclient"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
)

// recording is a listener that keeps what is said on its connections.
type recording struct {
	net.Listener
	seen chan *recorded
}

// Accept returns a connection of which what is read is kept.
func (r recording) Accept() (net.Conn, error) {
	c, err := r.Listener.Accept()
	if err != nil {
		return nil, err
	}
	seen := &recorded{Conn: c}
	r.seen <- seen
	return seen, nil
}

type recorded struct {
	net.Conn
	mu   sync.Mutex
	seen bytes.Buffer
}

func (c *recorded) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen.Write(p[:n])
	return n, err
}

// said returns what was said, and how the connection is secured. The platform's address, which is another each time, is left out.
func (c *recorded) said(t *testing.T, address string) (string, tls.ConnectionState) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	secured, ok := c.Conn.(*tls.Conn)
	if !ok {
		t.Fatalf("%T", c.Conn)
	}
	return strings.ReplaceAll(c.seen.String(), address, "ADDRESS"), secured.ConnectionState()
}

// same is a Source of one node's material.
type same struct{ m *nodehttp.Material }

func (s same) Material() (*nodehttp.Material, error) { return s.m, nil }

// TestWire: a simulated node sends what the agent's own client sends, byte for byte, over connections of the same kind.
func TestWire(t *testing.T) {
	ca := pkitest.NewCA(t, "authority")
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := ca.Sign(ca.Node("node"), public)
	id := identity{ID: "node", Name: "node", Certificate: cert.Raw, Key: key}
	state := newNode(id, endpoint{}).state
	task := nodeapi.LeasedTask{ID: "5f4dcc3b-0dfc-400a-89a7-000000000000", LeaseID: "1", Kind: "introspect", Attempt: 1, LeaseSeconds: 60}

	// agent and simulated each make the same calls.
	agent := func(address string) {
		m := &nodehttp.Material{PlatformURL: "https://" + address, CAs: []*x509.Certificate{ca.Cert}, Certificate: &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}
		c, err := nodeclient.New(nodeclient.Config{Credentials: same{m}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err = c.Heartbeat(t.Context(), state); err != nil {
			t.Fatal(err)
		}
		if _, err = c.Heartbeat(t.Context(), state); err != nil {
			t.Fatal(err)
		}
		if _, err = c.LeaseTasks(t.Context(), nodeapi.LeaseRequest{Max: leaseMax, WaitSeconds: int(leaseWait / time.Second), Holding: []string{}}); err != nil {
			t.Fatal(err)
		}
		if _, err = c.CompleteTask(t.Context(), task.ID, nodeapi.CompleteTask{LeaseID: task.LeaseID}); err != nil {
			t.Fatal(err)
		}
	}
	simulated := func(address string) {
		all := (&nodehttp.Material{CAs: []*x509.Certificate{ca.Cert}}).TLSConfig(time.Now)
		at, err := newEndpoint(all, id, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		n := newNode(id, at)
		defer n.heart.close()
		for range 2 {
			if err := n.beat(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		// One connection for all, as the agent's calls one after the other have.
		if err := n.heart.call(t.Context(), n.lease(leaseWait), new(nodeapi.LeaseResponse)); err != nil {
			t.Fatal(err)
		}
		if err := n.complete(t.Context(), &n.heart, task); err != nil {
			t.Fatal(err)
		}
	}

	said := func(speak func(address string)) (string, tls.ConnectionState) {
		plain, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		config := &tls.Config{
			MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert, NextProtos: []string{"h2", "http/1.1"},
			Certificates: []tls.Certificate{*ca.Issue(ca.Web())},
		}
		l := recording{tls.NewListener(plain, config), make(chan *recorded, 8)}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, `{"success":true,"data":{"acknowledged":true,"state_hash":"`+state.StateHash+`","tasks":[],"state":"complete"}}`)
		})}
		done := make(chan error, 1)
		go func() { done <- server.Serve(l) }()
		speak(plain.Addr().String())
		server.Close()
		<-done
		if n := len(l.seen); n != 1 {
			t.Fatalf("%d connections", n)
		}
		return (<-l.seen).said(t, plain.Addr().String())
	}
	want, agents := said(agent)
	got, ours := said(simulated)
	if got != want {
		t.Errorf("a simulated node says\n%s\nthe agent\n%s", got, want)
	}
	if ours.Version != agents.Version || ours.NegotiatedProtocol != agents.NegotiatedProtocol || ours.CipherSuite != agents.CipherSuite || ours.DidResume != agents.DidResume ||
		ours.ServerName != agents.ServerName || ours.CurveID != agents.CurveID || !ours.PeerCertificates[0].Equal(agents.PeerCertificates[0]) {
		t.Errorf("%+v\n%+v", ours, agents)
	}
}

func TestHead(t *testing.T) {
	for text, want := range map[string][2]int{
		"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nX: y\r\n\r\nab": {45, 12},
		"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 3\r\n\r\n":    {44, 3},
		"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n":               {-1, 0},
	} {
		if head, body, err := parseHead([]byte(text)); err != nil || head != want[0] || body != want[1] {
			t.Errorf("%q: %d %d %v", text, head, body, err)
		}
	}
	for _, text := range []string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"} {
		if _, _, err := parseHead([]byte(text)); err == nil {
			t.Errorf("%q passed", text)
		}
	}
}
