package metrics

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
)

func some() []Metric {
	return []Metric{
		{Name: "a_total", Help: "How often\nit is so.", Counter: true, Value: 3},
		{Name: "b", Help: "B.", Labels: []Label{{"kind", `x"y\`}, {"more", "1"}}, Value: 0.5},
		{Name: "b", Help: "B.", Labels: []Label{{"kind", "z"}}, Value: 1e9},
	}
}

const wrote = `# HELP a_total How often\nit is so.
# TYPE a_total counter
a_total 3
# HELP b B.
# TYPE b gauge
b{kind="x\"y\\",more="1"} 0.5
b{kind="z"} 1e+09
`

func TestWrite(t *testing.T) {
	var b strings.Builder
	if err := Write(&b, some()); err != nil || b.String() != wrote {
		t.Errorf("%s, %v", b.String(), err)
	}
	path := t.TempDir()
	dir, err := durable.OpenDir(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := WriteFile(dir, "powernode.prom", some()); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(path, "powernode.prom")); err != nil || string(text) != wrote {
		t.Errorf("%s, %v", text, err)
	}
}

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]string{
		"unix:/run/powernode/metrics": "unix /run/powernode/metrics", "127.0.0.1:9100": "tcp 127.0.0.1:9100", "[::1]:9100": "tcp [::1]:9100",
		"unix:metrics": "", "unix:/a/../b": "", "0.0.0.0:9100": "", ":9100": "", "10.0.0.1:1": "", "localhost:1": "", "127.0.0.1:0": "", "": "", "[::]:1": "",
	} {
		network, address, err := ParseAddress(text)
		if got := strings.TrimSpace(network + " " + address); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

func TestServer(t *testing.T) {
	for _, text := range []string{"unix:" + t.TempDir() + "/s", freePort(t)} {
		network, address, err := ParseAddress(text)
		if err != nil {
			t.Fatal(err)
		}
		if network == "unix" {
			l, err := net.Listen("unix", address)
			if err != nil {
				t.Fatal(err)
			}
			l.(*net.UnixListener).SetUnlinkOnClose(false) // as of one that was killed
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			Server{Network: network, Address: address, Collect: some, Log: slog.New(slog.DiscardHandler)}.Run(ctx, func(time.Duration) {})
			close(done)
		}()
		client := &http.Client{Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				for {
					c, err := (&net.Dialer{}).DialContext(ctx, network, address)
					if err == nil || ctx.Err() != nil {
						return c, err
					}
				}
			},
		}}
		ask := func(method, host, path string) (int, string) {
			t.Helper()
			r, err := http.NewRequestWithContext(ctx, method, "http://"+host+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			a, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Body.Close()
			body, err := io.ReadAll(a.Body)
			if err != nil {
				t.Fatal(err)
			}
			return a.StatusCode, string(body)
		}
		host := address
		if network == "unix" {
			host = "localhost"
		}
		if code, body := ask(http.MethodGet, host, "/metrics"); code != 200 || body != wrote {
			t.Errorf("%s: %d %s", text, code, body)
		}
		if code, _ := ask(http.MethodGet, host, "/debug/pprof"); code != 404 {
			t.Errorf("%s: another path: %d", text, code)
		}
		if code, _ := ask(http.MethodPost, host, "/metrics"); code != 405 {
			t.Errorf("%s: POST: %d", text, code)
		}
		if network == "tcp" {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				t.Fatal(err)
			}
			if code, _ := ask(http.MethodGet, "localhost:"+port, "/metrics"); code != 200 {
				t.Errorf("%s: by its name: %d", text, code)
			}
			if code, _ := ask(http.MethodGet, "evil.example:"+port, "/metrics"); code != 403 {
				t.Errorf("%s: another host at this port: %d", text, code)
			}
		}
		if code, _ := ask(http.MethodGet, "evil.example", "/metrics"); network == "tcp" && code != 403 {
			t.Errorf("%s: another host: %d", text, code)
		}
		cancel()
		<-done
	}
}

// silence is a listener that nobody calls.
type silence struct {
	net.Listener
	closed chan struct{}
}

func (s silence) Accept() (net.Conn, error) {
	<-s.closed
	return nil, net.ErrClosed
}

func (s silence) Close() error {
	close(s.closed)
	return nil
}

// TestServerLives: the watchdog hears of a server that serves for days, and of one that can't be opened.
func TestServerLives(t *testing.T) {
	for name, failures := range map[string]int{"serves": 0, "can't listen for a while": 100} {
		synctest.Test(t, func(t *testing.T) {
			s := Server{Network: "tcp", Address: "127.0.0.1:1", Collect: some, Log: slog.New(slog.DiscardHandler)}
			s.Listen = func(context.Context, string, string) (net.Listener, error) {
				if failures--; failures >= 0 {
					return nil, errors.New("in use")
				}
				return silence{closed: make(chan struct{})}, nil
			}
			ctx, cancel := context.WithTimeout(t.Context(), 72*time.Hour)
			defer cancel()
			due := time.Now()
			s.Run(ctx, func(d time.Duration) {
				if late := time.Since(due); late > 0 {
					t.Errorf("%s: late by %s", name, late)
				}
				due = time.Now().Add(d)
			})
			if late := time.Since(due); late > 0 {
				t.Errorf("%s: late by %s at the end", name, late)
			}
		})
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
