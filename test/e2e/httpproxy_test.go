package e2e

import (
	"bufio"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// httpProxy is an HTTP proxy that wants a password, and passes on what it is asked to CONNECT to.
type httpProxy struct {
	listener net.Listener
	// tunnels are those that were opened, refused those without the password; brought is what came back.
	tunnels, refused, brought atomic.Int64
	wait                      sync.WaitGroup
}

const proxyPassword = "cHJveHktdXNlcjpub3QtZm9yLWxvZ3M=" // proxy-user:not-for-logs

func newHTTPProxy(t testing.TB) *httpProxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &httpProxy{listener: l}
	p.wait.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			p.wait.Go(func() { p.tunnel(near) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close() // nobody is there to hear of it
		p.wait.Wait()
	})
	return p
}

func (p *httpProxy) tunnel(near net.Conn) {
	defer near.Close()
	in := bufio.NewReader(near)
	req, err := http.ReadRequest(in)
	if err != nil || req.Method != http.MethodConnect {
		return
	}
	if req.Header.Get("Proxy-Authorization") != "Basic "+proxyPassword {
		p.refused.Add(1)
		_, _ = io.WriteString(near, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
		return
	}
	far, err := net.Dial("tcp", req.Host)
	if err != nil {
		return
	}
	defer far.Close()
	p.tunnels.Add(1)
	_, _ = io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n")
	p.wait.Go(func() {
		_, _ = io.Copy(far, in) // either side may end it
		_ = far.Close()
	})
	// It counts while it comes: who counts it looks before the tunnel ends.
	_, _ = io.Copy(struct{ io.Writer }{near}, io.TeeReader(far, counter{&p.brought}))
}

// counter counts what is written to it.
type counter struct{ n *atomic.Int64 }

func (c counter) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return len(b), nil
}

// TestHTTPProxy: a node that is told of a proxy goes through it, for its platform and for what it pulls, now and when
// it boots again; and doesn't tell the proxy's password.
func TestHTTPProxy(t *testing.T) {
	t.Parallel()
	p := platformWith(t, base("1"))
	noise := make([]byte, 1<<20)
	for i := range noise {
		noise[i] = byte(rand.Int())
	}
	p.Publish(mod{Name: "large", Version: "1", Files: map[string]string{"usr/share/large": string(noise)}})
	n := p.node("web", "base", "large")
	proxy := newHTTPProxy(t)
	address := proxy.listener.Addr().String()

	identity, err := os.ReadFile(n.identity)
	if err != nil {
		t.Fatal(err)
	}
	write(t, n.identity, append([]byte("PROXY=http://proxy-user:wrong@"+address+"\n"), identity...), 0o600)
	if r := n.agent("enroll", "--identity-file", n.identity, "--tries", "1"); r.Code == 0 || proxy.refused.Load() == 0 || proxy.tunnels.Load() != 0 {
		t.Fatalf("with a wrong password: code %d, %d tunnels, %d refusals:\n%s", r.Code, proxy.tunnels.Load(), proxy.refused.Load(), r.Stderr)
	} else if strings.Contains(r.Stderr, "wrong") {
		t.Errorf("the password is said:\n%s", r.Stderr)
	}

	write(t, n.identity, append([]byte("PROXY=http://proxy-user:not-for-logs@"+address+"\n"), identity...), 0o600)
	s := n.boot()
	s.report()
	opened := proxy.tunnels.Load()
	said := s.console() + s.agent("status").OK(t) + s.agent("introspect", "--output", "json").OK(t)
	s.exit()
	if opened == 0 || proxy.brought.Load() < int64(len(noise)) {
		t.Errorf("through the proxy came %d bytes in %d tunnels; the module alone has %d", proxy.brought.Load(), opened, len(noise))
	}
	if strings.Contains(said, "not-for-logs") || strings.Contains(said, proxyPassword) {
		t.Errorf("the proxy's password is said:\n%s", said)
	}

	// The proxy belongs to the credentials: no source of identity is asked any more.
	if err := os.Remove(n.identity); err != nil {
		t.Fatal(err)
	}
	before := proxy.tunnels.Load()
	s = n.boot()
	s.report()
	if proxy.tunnels.Load() == before {
		t.Error("the second boot goes past the proxy")
	}
}
