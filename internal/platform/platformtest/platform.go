// Package platformtest runs a whole platform for tests: real TLS, database and registry, on
// loopback, over a directory of the test's own, with a clock that the test moves. Where the environment says
// POWERNODE_TEST_DATABASE=postgres, its records are in a PostgreSQL.
//
// It promises nothing to production code, which must not import it.
package platformtest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
	"github.com/powernode/powernode-agent/internal/platform"
	"github.com/powernode/powernode-agent/internal/platform/postgrestest"
)

// Platform is a running platform.
type Platform struct {
	// Dir is its data directory.
	Dir string
	// URL is its public URL.
	URL string
	// Operator speaks with it, with the credentials that it made.
	Operator *operatorclient.Client
	// Config is these credentials.
	Config operatorclient.Config
	// Clock is its clock.
	Clock *Clock

	t       testing.TB
	options platform.Options
	// lent are the operator's credentials of another platform that this one is a replica of, or nil.
	lent *operatorclient.Config
	// keep keeps its port, and stop stops it; both do so once.
	keep, stop func()
}

// Clock is the machine's clock, moved by what the test adds.
type Clock struct {
	mu    sync.Mutex
	ahead time.Duration
	// still is when it was stopped; zero while it goes.
	still time.Time
}

// Now returns the moved time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.still.IsZero() {
		return c.still.Add(c.ahead)
	}
	return time.Now().Add(c.ahead)
}

// Stop lets no time pass until resume is called but what Advance adds, so that what is allowed with time is
// the same on a machine of any speed.
func (c *Clock) Stop() (resume func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.still = time.Now()
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.still = time.Time{}
	}
}

// Advance moves the clock on.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

// Start starts a platform in a new directory. It stops with the test.
func Start(t testing.TB) *Platform {
	t.Helper()
	return StartWith(t, platform.Options{})
}

// StartWith is Start with options that the test sets; directory, address, clock, version and log are Start's.
func StartWith(t testing.TB, o platform.Options) *Platform {
	t.Helper()
	if o.Database == nil && postgrestest.Wanted() {
		o.Database = Postgres(t)
	}
	return start(t, o, filepath.Join(t.TempDir(), "platform"), "127.0.0.1:0", &Clock{}, nil)
}

// Restart stops the platform and starts it again over the same directory and address.
func (p *Platform) Restart() *Platform {
	p.t.Helper()
	p.Stop()
	return start(p.t, p.options, p.Dir, p.Config.RegistryHost(), p.Clock, p.lent)
}

// start starts a platform. The operator's credentials are those in its directory, or those that are given.
func start(t testing.TB, o platform.Options, dir, listen string, clock *Clock, credentials *operatorclient.Config) *Platform {
	t.Helper()
	o.Dir, o.Listen, o.Version, o.Now = dir, listen, "v0-test", clock.Now
	o.Logger = slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelInfo}))
	if o.Database == nil {
		file(t, dir)
	}
	server, err := platform.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx) }()
	p := &Platform{Dir: dir, URL: server.URL().String(), Clock: clock, t: t, options: o, lent: credentials}
	p.keep = sync.OnceFunc(p.keepPort)
	p.stop = sync.OnceFunc(func() {
		if p.Operator != nil {
			p.Operator.Close()
		}
		cancel()
		if err := <-served; err != nil {
			t.Errorf("the platform ended with: %v", err)
		}
	})
	t.Cleanup(p.stop)
	if credentials != nil {
		p.Config = *credentials
		p.Config.URL = p.URL
	} else if p.Config, err = operatorclient.LoadConfig(filepath.Join(dir, operatorapi.CredentialName)); err != nil {
		t.Fatal(err)
	}
	if p.Operator, err = operatorclient.NewClient(p.Config); err != nil {
		t.Fatal(err)
	}
	return p
}

// Stop stops the platform as SIGTERM does. For a minute nobody else gets its port, unless the test ends before.
func (p *Platform) Stop() {
	p.t.Helper()
	p.keep()
	p.stop()
}

// keepPort leaves the platform a connection to end that the other side keeps open: the kernel gives such a connection's port to nobody who asks for
// any, and there are many who do while tests run, but to the platform again. Where there is none, the port is only likely to be free then.
func (p *Platform) keepPort() {
	host := p.Config.RegistryHost()
	raw, err := (&net.Dialer{Timeout: time.Minute}).DialContext(context.Background(), "tcp", host)
	if err != nil {
		return
	}
	p.t.Cleanup(func() { _ = raw.Close() })
	_ = raw.SetDeadline(time.Now().Add(time.Minute))
	// Whose certificate it is doesn't matter. A client of its own would answer the end of the connection.
	conn := tls.Client(raw, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}) //nolint:gosec // nothing is told
	if _, err = fmt.Fprintf(conn, "GET /healthz HTTP/1.1\r\nHost: %s\r\n\r\n", host); err != nil {
		return
	}
	if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
}

// Client returns an HTTP client that trusts the platform's CA, presents node's certificate if
// node isn't nil, and keeps no connection.
func (p *Platform) Client(node *Node) *http.Client {
	p.t.Helper()
	config, err := p.Config.TLS()
	if err != nil {
		p.t.Fatal(err)
	}
	if node != nil {
		config.Certificates = append(config.Certificates, node.TLS)
	}
	config.Time = p.Clock.Now
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true, DialContext: (&net.Dialer{}).DialContext}
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

// testLog writes the platform's log into the test's.
type testLog struct{ t testing.TB }

func (w testLog) Write(p []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimSpace(p))
	return len(p), nil
}
