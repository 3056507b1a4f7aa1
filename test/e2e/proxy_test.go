package e2e

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// proxy is a bad network: it passes connections on, counts what comes back, and cuts.
type proxy struct {
	listener net.Listener
	target   string
	// each is how many bytes a connection brings back before it is cut; 0 is no limit.
	each atomic.Int64
	// left is how many bytes come back in all before nothing does any more; negative is no limit.
	left atomic.Int64
	// brought is what came back so far.
	brought atomic.Int64
	wait    sync.WaitGroup
}

// newProxy starts a proxy. The test's end stops it.
func newProxy(t testing.TB) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l}
	p.left.Store(-1)
	t.Cleanup(func() {
		_ = l.Close() // nobody is there to hear of it
		p.wait.Wait()
	})
	return p
}

func (p *proxy) url() string { return "https://" + p.listener.Addr().String() }

// serve passes on to target from now on.
func (p *proxy) serve(target string) {
	p.target = target
	p.wait.Go(func() {
		for {
			near, err := p.listener.Accept()
			if err != nil {
				return
			}
			p.wait.Go(func() { p.pass(near) })
		}
	})
}

func (p *proxy) pass(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer far.Close()
	p.wait.Go(func() {
		_, _ = io.Copy(far, near) // either side may end it
		_ = far.Close()
	})
	_, _ = io.Copy(&cutter{Conn: near, proxy: p}, far)
}

// cutter is the way back to the node.
type cutter struct {
	net.Conn
	proxy *proxy
	done  int64
}

var errCut = errors.New("cut")

// ReadFrom isn't there to be taken: every byte must come through Write.
func (c *cutter) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{c}, r)
}

func (c *cutter) Write(b []byte) (int, error) {
	if each := c.proxy.each.Load(); each > 0 && c.done+int64(len(b)) > each {
		return 0, errCut
	}
	if left := c.proxy.left.Load(); left >= 0 && c.proxy.left.Add(-int64(len(b))) < 0 {
		c.proxy.left.Store(0)
		return 0, errCut
	}
	n, err := c.Conn.Write(b)
	c.done += int64(n)
	c.proxy.brought.Add(int64(n))
	return n, err
}
