package faults

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// room is how many bytes are under way at most in one direction.
const room = 64 << 10

// half is one direction of a connection.
type half struct {
	mu      sync.Mutex
	changed sync.Cond
	buf     []byte
	// readErr is for the reader, after what is in buf unless it is dropped; writeErr is for the writer.
	readErr, writeErr error
	// mute swallows what is written, and never ends.
	mute bool
	// The deadlines, and the timers that end the waits for them.
	readBy, writeBy deadline
}

type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) over() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func newHalf() *half {
	h := &half{}
	h.changed.L = &h.mu
	return h
}

func (h *half) with(do func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	do()
	h.changed.Broadcast()
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case len(h.buf) > 0 && !h.mute:
			n := copy(p, h.buf)
			h.buf = h.buf[n:]
			h.changed.Broadcast()
			return n, nil
		case h.readErr != nil:
			return 0, h.readErr
		case h.readBy.over():
			return 0, os.ErrDeadlineExceeded
		}
		h.changed.Wait()
	}
}

func (h *half) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	done := 0
	for {
		switch {
		case h.writeErr != nil:
			return done, h.writeErr
		case h.mute || done == len(p):
			return len(p), nil
		case h.writeBy.over():
			return done, os.ErrDeadlineExceeded
		}
		if n := min(room-len(h.buf), len(p)-done); n > 0 {
			h.buf = append(h.buf, p[done:done+n]...)
			done += n
			h.changed.Broadcast()
			continue
		}
		h.changed.Wait()
	}
}

func (h *half) until(d *deadline, at time.Time) {
	h.with(func() {
		if d.timer != nil {
			d.timer.Stop()
			d.timer = nil
		}
		if d.at = at; !at.IsZero() {
			d.timer = time.AfterFunc(max(time.Until(at), 0), func() { h.with(func() {}) })
		}
	})
}

// end is one end of a connection in memory that behaves as one of TCP.
type end struct {
	in, out *half
	name    string
	closed  func()
	once    sync.Once
}

// connect returns both ends; closed runs once when the first one is closed.
func connect(closed func()) (*end, *end) {
	a, b := newHalf(), newHalf()
	return &end{in: a, out: b, name: "node", closed: closed}, &end{in: b, out: a, name: "platform", closed: func() {}}
}

func (e *end) Read(p []byte) (int, error) {
	n, err := e.in.read(p)
	return n, e.wrap("read", err)
}

func (e *end) Write(p []byte) (int, error) {
	n, err := e.out.write(p)
	return n, e.wrap("write", err)
}

func (e *end) wrap(op string, err error) error {
	if err == nil || err == io.EOF { //nolint:errorlint // as it is, by the contract of io.Reader
		return err
	}
	if errno, ok := err.(syscall.Errno); ok { //nolint:errorlint // it is our own
		err = os.NewSyscallError(op, errno)
	}
	return &net.OpError{Op: op, Net: "tcp", Source: e.LocalAddr(), Addr: e.RemoteAddr(), Err: err}
}

// Close is the end of this end: the other one reads what is under way, and can't write any more.
func (e *end) Close() error {
	e.once.Do(func() {
		e.in.with(func() {
			e.in.readErr, e.in.buf, e.in.writeErr = net.ErrClosed, nil, errnoOr(e.in.writeErr, syscall.EPIPE)
		})
		e.out.with(func() { e.out.writeErr, e.out.readErr = net.ErrClosed, errnoOr(e.out.readErr, io.EOF) })
		_ = e.SetDeadline(time.Time{}) // so that no timer is left
		e.closed()
	})
	return nil
}

func errnoOr(was, err error) error {
	if was != nil {
		return was
	}
	return err
}

// reset ends the connection as a peer does that doesn't know it: nothing under way arrives.
func (e *end) reset() {
	for _, h := range []*half{e.in, e.out} {
		h.with(func() {
			h.buf, h.mute = nil, false
			h.readErr, h.writeErr = errnoOr(h.readErr, syscall.ECONNRESET), errnoOr(h.writeErr, syscall.ECONNRESET)
		})
	}
}

// mute makes the connection a half-open one: nothing arrives any more, and nobody says so.
func (e *end) mute() {
	for _, h := range []*half{e.in, e.out} {
		h.with(func() { h.mute = true })
	}
}

func (e *end) LocalAddr() net.Addr  { return address(e.name) }
func (e *end) RemoteAddr() net.Addr { return address("peer of the " + e.name) }

func (e *end) SetReadDeadline(t time.Time) error  { e.in.until(&e.in.readBy, t); return nil }
func (e *end) SetWriteDeadline(t time.Time) error { e.out.until(&e.out.writeBy, t); return nil }
func (e *end) SetDeadline(t time.Time) error {
	_ = e.SetReadDeadline(t)
	return e.SetWriteDeadline(t)
}

type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

// left tells whether the other end is closed.
func (e *end) left() (yes bool) {
	e.out.with(func() { yes = e.out.writeErr != nil })
	return yes
}
