package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// callTimeout is how long a call may take beyond what the platform was asked to wait, as the agent's.
const callTimeout = 30 * time.Second

// endpoint is what a node's connections have in common.
type endpoint struct {
	// address is HOST:PORT of the platform, source the address that connections come from.
	address string
	source  net.IP
	config  *tls.Config
}

// newEndpoint returns the endpoint of a node, whose TLS is as all nodes' but for the certificate.
func newEndpoint(all *tls.Config, id identity, address string, source net.IP) (endpoint, error) {
	host, _, err := net.SplitHostPort(address)
	config := all.Clone()
	config.ServerName = host
	cert := &tls.Certificate{Certificate: [][]byte{id.Certificate}, PrivateKey: id.Key}
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	return endpoint{address: address, source: source, config: config}, err
}

// request returns what the agent sends for a call: the bytes of package nodeclient, as a test shows.
func request(address, path string, body any) []byte {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // the wire's structs can't fail to be encoded
	}
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: powernode-agent\r\nContent-Length: %d\r\nAccept: application/json\r\nContent-Type: application/json\r\n\r\n%s",
		path, address, len(text), text)
}

// line is a connection that is kept. Nothing runs for it, and it has no buffers of its own, while it is idle.
type line struct {
	endpoint endpoint
	tcp      *net.TCPConn
	tls      *tls.Conn
}

// open connects, unless the line is.
func (l *line) open(ctx context.Context) error {
	if l.tls != nil {
		return nil
	}
	dialer := net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	if l.endpoint.source != nil {
		dialer.LocalAddr = &net.TCPAddr{IP: l.endpoint.source}
	}
	c, err := dialer.DialContext(ctx, "tcp", l.endpoint.address)
	if err != nil {
		return err
	}
	shaking := tls.Client(c, l.endpoint.config)
	if err := shaking.HandshakeContext(ctx); err != nil {
		return errors.Join(err, c.Close())
	}
	l.tcp, _ = c.(*net.TCPConn)
	l.tls = shaking
	return nil
}

func (l *line) close() {
	if l.tls != nil {
		_ = l.tls.Close()
		l.tcp, l.tls = nil, nil
	}
}

// send sends a request.
func (l *line) send(ctx context.Context, request []byte, wait time.Duration) error {
	if err := l.open(ctx); err != nil {
		return err
	}
	if err := l.tls.SetDeadline(time.Now().Add(callTimeout + wait)); err != nil {
		return err
	}
	_, err := l.tls.Write(request)
	return err
}

// await returns once there is something to read, or the line is dead. It takes no more of a goroutine's stack than that of a new one,
// where a Read of crypto/tls has one grow to several times that.
func (l *line) await() error {
	raw, err := l.tcp.SyscallConn()
	if err != nil {
		return err
	}
	var one [1]byte
	return raw.Read(func(fd uintptr) bool {
		_, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return !errors.Is(err, unix.EAGAIN)
	})
}

// answers are buffers for one answer each; none of those to a simulated node is larger.
var answers = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// receive reads the answer to what was sent, and decodes its data. The line is closed if it fails.
func (l *line) receive(into any) (err error) {
	buffer, _ := answers.Get().(*[16 << 10]byte)
	defer answers.Put(buffer)
	head, body, n := -1, 0, 0
	for head < 0 || n < head+body {
		got, err := l.tls.Read(buffer[n:])
		if n += got; err != nil {
			l.close()
			return err
		}
		if head < 0 {
			if head, body, err = parseHead(buffer[:n]); err != nil {
				l.close()
				return err
			}
		}
		if n == len(buffer) {
			l.close()
			return io.ErrShortBuffer
		}
	}
	if bytes.Contains(buffer[:head], []byte("\r\nConnection: close\r\n")) {
		l.close()
	}
	var envelope nodeapi.Envelope
	if err := json.Unmarshal(buffer[head:n], &envelope); err != nil {
		return err
	}
	if !envelope.Success {
		return fmt.Errorf("the platform answered %.40s: %s", buffer[:bytes.IndexByte(buffer[:], '\r')], envelope.Error)
	}
	return json.Unmarshal(envelope.Data, into)
}

// parseHead returns where the body of an answer begins and how long it is; head is negative for as long as the header isn't there whole.
func parseHead(b []byte) (head, body int, err error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return -1, 0, nil
	}
	const name = "\r\nContent-Length: "
	at := bytes.Index(b[:end], []byte(name))
	if at < 0 {
		return -1, 0, errors.New("an answer without Content-Length")
	}
	value, _, _ := bytes.Cut(b[at+len(name):end+2], []byte("\r\n"))
	body, err = strconv.Atoi(string(value))
	return end + 4, body, err
}

// call is send and receive.
func (l *line) call(ctx context.Context, request []byte, into any) error {
	if err := l.send(ctx, request, 0); err != nil {
		l.close()
		return err
	}
	return l.receive(into)
}
