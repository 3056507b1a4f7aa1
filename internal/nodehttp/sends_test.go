package nodehttp

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
)

// late dials when the next connection is dialled: that one is then what net/http has no use for any more.
type late struct {
	mu   sync.Mutex
	next chan struct{}
	end  <-chan struct{}
	// dials says that there was one.
	dials chan struct{}
}

func (l *late) dial(_ context.Context, network, address string) (net.Conn, error) {
	l.mu.Lock()
	mine := make(chan struct{})
	if l.next != nil {
		close(l.next)
	}
	l.next = mine
	l.mu.Unlock()
	select {
	case l.dials <- struct{}{}:
	default:
	}
	select {
	case <-mine:
	case <-l.end:
	}
	return (&net.Dialer{}).Dial(network, address)
}

// TestSends: a peer that ends each connection without an answer isn't asked in a circle.
func TestSends(t *testing.T) {
	ca := pkitest.NewCA(t, "CA")
	var asked atomic.Int32
	srv := ca.Serve(ca.Web(), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		panic(http.ErrAbortHandler)
	}), nil)
	end := make(chan struct{})
	l := &late{end: end, dials: make(chan struct{}, 1)}
	c := connect(t, srv.URL, Options{Dial: l.dial}, ca.Cert)
	// A call that is given up leaves a connection that is being dialled.
	ctx, giveUp := context.WithCancel(t.Context())
	go func() {
		<-l.dials
		giveUp()
	}()
	if err := c.Do(ctx, Call{Doing: "try", Method: "GET"}); err == nil {
		t.Fatal("given up, it has an answer")
	}
	err := c.Do(t.Context(), Call{Doing: "ask", Method: "GET"})
	close(end)
	if fault.KindOf(err) != fault.Retry || !strings.Contains(err.Error(), "5 connections broke before there was an answer") {
		t.Errorf("%v", err)
	}
	if n := asked.Load(); n < mostSends-1 || n > mostSends+1 {
		t.Errorf("it was asked %d times", n)
	}
}
