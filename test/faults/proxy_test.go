package faults

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// network is what becomes of every connection for a while.
type network int

const (
	good network = iota
	refused
	hole
	alert
	certificateAlert
)

// proxy stands between a node and its platform, and ends the TLS of both.
type proxy struct {
	t        testing.TB
	platform string // host:port
	server   tls.Certificate
	roots    *tls.Config // that the platform is spoken to by
	// pair returns the node's certificate with its key.
	pair func(leaf []byte) *tls.Certificate
	// follow has the platform's clock follow the bubble's.
	follow func()

	kinds []kind
	on    kind
	fault fault
	lasts time.Duration

	mu      sync.Mutex
	state   network
	until   time.Time // of the fault, once it has struck
	struck  int
	asked   map[kind]int
	dials   int
	open    map[*end]bool          // the node's ends that the node hasn't closed
	ours    map[*end]bool          // the proxy's
	done    map[string]int         // by path: how often the platform said yes
	idle    map[string][]*upstream // by the certificate that they were opened with
	serving sync.WaitGroup
	over    bool
}

func (p *proxy) with(do func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	do()
}

// gone tells whether the fault has struck, and is over, or there is none.
func (p *proxy) gone() (yes bool) {
	p.with(func() {
		yes = p.on == "" || p.struck > 0 && (!time.Now().Before(p.until) || p.fault.times > 0 && p.struck >= p.fault.times)
	})
	return yes
}

// strikes tells whether the fault strikes a request now.
func (p *proxy) strikes(k kind) (yes bool) {
	p.with(func() {
		p.asked[k]++
		if k != p.on || p.struck > 0 && !time.Now().Before(p.until) || p.fault.times > 0 && p.struck >= p.fault.times {
			return
		}
		if p.struck == 0 {
			p.until = time.Now().Add(p.lasts)
		}
		p.struck++
		yes = true
	})
	return yes
}

// network returns how the network is.
func (p *proxy) network() (n network) {
	p.with(func() {
		if n = p.state; n != good && !time.Now().Before(p.until) {
			p.state, n = good, good
		}
	})
	return n
}

// outage has the network be so for as long as the fault lasts.
func (p *proxy) outage(n network) {
	var ours []*end
	p.with(func() {
		p.state = n
		for e := range p.ours {
			ours = append(ours, e)
		}
	})
	for _, e := range ours {
		if n == hole {
			e.mute()
		} else {
			e.reset()
		}
	}
}

// dial is what the node opens its connections by.
func (p *proxy) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	p.with(func() { p.dials++ })
	failed := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: address(p.platform), Err: err}
	}
	switch p.network() {
	case refused:
		return failed(syscall.ECONNREFUSED)
	case hole:
		select {
		case <-ctx.Done():
			return failed(ctx.Err())
		case <-time.After(10 * time.Second):
			return failed(syscall.ETIMEDOUT)
		}
	case good, alert, certificateAlert:
	}
	var node *end
	node, ours := connect(func() { p.with(func() { delete(p.open, node) }) })
	p.with(func() { p.open[node], p.ours[ours] = true, true })
	p.serving.Go(func() {
		defer p.with(func() { delete(p.ours, ours) })
		defer ours.Close()
		p.serve(ours)
	})
	return node, nil
}

// close ends everything that the proxy has.
func (p *proxy) close() {
	var ours []*end
	p.with(func() {
		p.over = true
		for e := range p.ours {
			ours = append(ours, e)
		}
	})
	for _, e := range ours {
		e.Close()
	}
	p.serving.Wait()
	for _, resting := range p.idle {
		for _, u := range resting {
			u.close()
		}
	}
}

// exchange is a request on its way.
type exchange struct {
	p     *proxy
	wire  *end
	node  *tls.Conn
	up    *upstream
	r     *http.Request
	body  []byte
	kind  kind
	again bool // the connection may serve for more
}

// serve serves a connection of the node.
func (p *proxy) serve(wire *end) {
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{p.server}, ClientAuth: tls.RequestClientCert, SessionTicketsDisabled: true,
		NextProtos: []string{"http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			if p.network() == alert {
				return nil, errors.New("no") // it becomes an alert
			}
			return nil, nil
		},
		VerifyPeerCertificate: func(certificates [][]byte, _ [][]*x509.Certificate) error {
			if p.network() == certificateAlert && len(certificates) > 0 {
				return errors.New("no") // likewise: bad_certificate
			}
			return nil
		},
	}
	node := tls.Server(wire, config)
	if node.HandshakeContext(context.Background()) != nil {
		return
	}
	x := exchange{p: p, wire: wire, node: node, up: &upstream{p: p}}
	defer func() { x.up.rest() }()
	if certificates := node.ConnectionState().PeerCertificates; len(certificates) > 0 {
		if x.up.pair = p.pair(certificates[0].Raw); x.up.pair == nil {
			p.t.Error("the node shows a certificate that it doesn't have on its disk")
			return
		}
	}
	in := bufio.NewReader(node)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if x.body, err = io.ReadAll(io.LimitReader(r.Body, 8<<20)); err != nil {
			return
		}
		of, known := kindOf(p.kinds, r.URL.Path)
		if !known {
			p.t.Errorf("the node asks %s, which isn't among the kinds of request", r.URL.Path)
		}
		x.r, x.kind, x.again = r, of, true
		if p.strikes(x.kind) {
			p.fault.strike(&x)
		} else {
			x.pass()
		}
		if !x.again {
			return
		}
	}
}

// answer is what the platform said.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// pass brings the request to the platform, and the answer to the node.
func (x *exchange) pass() {
	if a, ok := x.forward(); ok {
		x.reply(a)
	}
}

// forward brings the request to the platform. In a call for tasks the time to wait passes here, where it costs nothing.
func (x *exchange) forward() (answer, bool) {
	var wait time.Duration
	if x.kind == nodeapi.PathTaskLease {
		var in nodeapi.LeaseRequest
		if err := json.Unmarshal(x.body, &in); err != nil {
			x.p.t.Errorf("a call for tasks: %v", err)
		}
		wait, in.WaitSeconds = time.Duration(in.WaitSeconds)*time.Second, 0
		x.body, _ = json.Marshal(in)
	}
	for end := time.Now().Add(wait); ; time.Sleep(10 * time.Second) {
		a, err := x.up.do(x.r, x.body, len(x.body))
		if err != nil {
			x.p.t.Errorf("%s %s: %v", x.r.Method, x.r.URL.Path, err)
			x.again = false
			return a, false
		}
		if a.status/100 == 2 {
			x.p.with(func() { x.p.done[x.r.URL.Path]++ })
		}
		over := false
		x.p.with(func() { over = x.p.over || !x.p.ours[x.wire] })
		if over || x.kind != nodeapi.PathTaskLease || !bytes.Contains(a.body, []byte(`"tasks":[]`)) || !time.Now().Add(10*time.Second).Before(end) || x.wire.left() {
			return a, true
		}
	}
}

// reply answers the node.
func (x *exchange) reply(a answer) {
	x.write(x.head(a, len(a.body)), a.body)
}

// head is the beginning of an answer, which says that length bytes follow.
func (x *exchange) head(a answer, length int) []byte {
	header := a.header.Clone()
	if header == nil {
		header = http.Header{"Content-Type": {"application/json"}}
	}
	header.Set("Content-Length", strconv.Itoa(length))
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", a.status, http.StatusText(a.status))
	_ = header.Write(&b) // a buffer takes everything
	b.WriteString("\r\n")
	return b.Bytes()
}

// write writes to the node, which may have gone.
func (x *exchange) write(parts ...[]byte) bool {
	if _, err := x.node.Write(bytes.Join(parts, nil)); err != nil {
		x.again = false
	}
	return x.again
}

// say answers in place of the platform.
func (x *exchange) say(status int, body string, headers ...string) {
	h := http.Header{"Content-Type": {"application/json"}}
	for i := 0; i < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	a := answer{status, h, []byte(body)}
	x.write(x.head(a, len(body)), a.body)
}

func (x *exchange) reset() { x.wire.reset(); x.again = false }

// upstream is the other side's connection, real TLS over real TCP. One that rests serves the next connection of the node that shows the same certificate.
type upstream struct {
	p    *proxy
	pair *tls.Certificate
	raw  net.Conn
	tls  *tls.Conn
	in   *bufio.Reader
}

// by is what a resting connection is found by.
func (u *upstream) by() string {
	if u.pair == nil {
		return ""
	}
	return string(u.pair.Certificate[0])
}

func (u *upstream) rest() {
	if u.raw == nil {
		return
	}
	kept := false
	u.p.with(func() {
		if kept = !u.p.over; kept {
			u.p.idle[u.by()] = append(u.p.idle[u.by()], u)
		}
	})
	if !kept {
		u.close()
	}
}

func (u *upstream) connect() error {
	if u.raw != nil {
		return nil
	}
	u.p.with(func() {
		if rest := u.p.idle[u.by()]; len(rest) > 0 {
			found := rest[len(rest)-1]
			u.p.idle[u.by()] = rest[:len(rest)-1]
			u.raw, u.tls, u.in = found.raw, found.tls, found.in
		}
	})
	if u.raw != nil {
		return nil
	}
	raw, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", u.p.platform)
	if err != nil {
		return err
	}
	config := u.p.roots.Clone()
	if u.pair != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return u.pair, nil }
	}
	u.raw, u.tls = raw, tls.Client(raw, config)
	u.in = bufio.NewReader(u.tls)
	return u.tls.HandshakeContext(context.Background())
}

// send sends a request, and of its body the first bytes.
func (u *upstream) send(r *http.Request, body []byte, first int) error {
	if err := u.connect(); err != nil {
		return err
	}
	u.p.follow()
	var b bytes.Buffer
	out := r.Clone(context.Background())
	out.Host, out.Body, out.ContentLength = u.p.platform, io.NopCloser(bytes.NewReader(body)), int64(len(body))
	if err := out.Write(&b); err != nil {
		return err
	}
	_, err := u.tls.Write(b.Bytes()[:b.Len()-len(body)+first])
	return err
}

func (u *upstream) do(r *http.Request, body []byte, first int) (answer, error) {
	if err := u.send(r, body, first); err != nil {
		return answer{}, err
	}
	resp, err := http.ReadResponse(u.in, r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if resp.Close {
		u.close()
	}
	return answer{resp.StatusCode, resp.Header, data}, err
}

func (u *upstream) close() {
	if u.raw != nil {
		_ = u.raw.Close()
		u.raw = nil
	}
}
