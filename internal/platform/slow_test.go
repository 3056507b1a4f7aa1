package platform

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/api"
	"github.com/powernode/powernode-agent/internal/platform/registry"
)

// pipes is a listener without a network.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error { close(p.closed); return nil }

func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// slow is a server with one caller.
type slow struct {
	// closed holds when the connection was closed.
	closed chan time.Time
	end    func()
}

// slowly starts a server, and returns the other side of a connection to it; secure is for one with TLS. Operators find a blob in its registry.
func slowly(t *testing.T, secure *tls.Config) (net.Conn, slow) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	mux := http.NewServeMux()
	mux.Handle("/api/", api.New(api.Options{Logger: log, Now: time.Now}).Handler())
	mux.Handle(registry.Root, registry.New(registry.Options{Dir: blobDir(t), Index: oneBlob{}, Logger: log, Authenticate: func(r *http.Request) (*registry.Caller, error) {
		if r.Header.Get("Authorization") == "" {
			return nil, nil
		}
		return &registry.Caller{Operator: true}, nil
	}}))
	server := newHTTPServer(logging(log, mux), log)
	s := slow{closed: make(chan time.Time, 1)}
	server.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			s.closed <- time.Now()
		}
	}
	listener := pipes{make(chan net.Conn), make(chan struct{})}
	served := make(chan error, 1)
	if server.TLSConfig = secure; secure != nil {
		go func() { served <- server.ServeTLS(listener, "", "") }()
	} else {
		go func() { served <- server.Serve(listener) }()
	}
	client, peer := net.Pipe()
	listener.conns <- peer
	s.end = func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	}
	return client, s
}

// TestSlowClients: whoever sends nothing, or not all of it, loses the connection after a bounded time, and hears why where an answer is
// possible.
func TestSlowClients(t *testing.T) {
	const post = "POST %s HTTP/1.1\r\nHost: p\r\nContent-Length: 100\r\n\r\n"
	request := func(path string) string { return strings.Replace(post, "%s", path, 1) }
	for name, tc := range map[string]struct {
		sends  string
		status int // 0 is none
		within time.Duration
	}{
		"nothing":                           {"", 0, time.Minute},
		"half a header":                     {"GET / HT", http.StatusBadRequest, time.Minute},
		"no body, and it would be read":     {request(nodeapi.PathEnroll), http.StatusBadRequest, time.Minute},
		"half a body":                       {request(nodeapi.PathEnroll) + "{", http.StatusBadRequest, time.Minute},
		"no body, and the caller is no one": {request(operatorapi.PathNodes), http.StatusUnauthorized, time.Minute},
		"no body, to the registry":          {request("/v2/modules/x/blobs/uploads/"), http.StatusUnauthorized, 2 * time.Minute},
		"no further request":                {"GET /api/nothing HTTP/1.1\r\nHost: p\r\n\r\n", http.StatusNotFound, 3 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := slowly(t, nil)
				begun := time.Now()
				go func() {
					// The server may be gone before all is written.
					_, _ = io.WriteString(client, tc.sends)
				}()
				in := bufio.NewReader(client)
				resp, err := http.ReadResponse(in, nil)
				switch {
				case tc.status == 0 && err == nil, tc.status != 0 && (err != nil || resp.StatusCode != tc.status):
					t.Errorf("%+v, %v; want %d", resp, err, tc.status)
				case err == nil:
					if _, err := io.Copy(io.Discard, resp.Body); err != nil {
						t.Error(err)
					}
				}
				if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
					t.Errorf("the connection isn't closed: %v", err)
				}
				if took := time.Since(begun); took > tc.within {
					t.Errorf("it was held for %s", took)
				}
				server.end()
			})
		})
	}
}
