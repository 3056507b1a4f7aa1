package cloud

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// transport answers requests without a network, so that the clock of a bubble runs by itself.
type transport func(r *http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// body ends with its request's context.
type body struct {
	ctx   context.Context
	every time.Duration
}

func (b body) Read(p []byte) (int, error) {
	select {
	case <-b.ctx.Done():
		return 0, b.ctx.Err()
	case <-time.After(b.every):
		p[0] = 'a'
		return 1, nil
	}
}

func (body) Close() error { return nil }

// TestWholeTime: whatever the service does, all of it ends before Timeout, or before the caller's
// deadline, with what it did as the reason.
func TestWholeTime(t *testing.T) {
	respond := func(r *http.Request, status int, b io.ReadCloser) *http.Response {
		return &http.Response{StatusCode: status, Header: http.Header{"Metadata-Flavor": {"Google"}}, Body: b, Request: r, ContentLength: -1}
	}
	behaviours := map[string]struct {
		f   transport
		why string
	}{
		"never connects": {func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}, "no answer, or not all of it, within 2s"},
		"refuses": {func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }, "connection refused"},
		"drips": {func(r *http.Request) (*http.Response, error) {
			return respond(r, 200, body{r.Context(), 100 * time.Millisecond}), nil
		}, "no answer, or not all of it, within 2s"},
		"is ill": {func(r *http.Request) (*http.Response, error) {
			return respond(r, 503, io.NopCloser(strings.NewReader(""))), nil
		}, "503"},
		"has nothing": {func(r *http.Request) (*http.Response, error) {
			return respond(r, 404, io.NopCloser(strings.NewReader(""))), nil
		}, "not found"},
		"is ill, slowly": {func(r *http.Request) (*http.Response, error) {
			select {
			case <-time.After(1900 * time.Millisecond):
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
			return respond(r, 500, io.NopCloser(strings.NewReader(""))), nil
		}, "500"},
	}
	for what, b := range behaviours {
		for _, limit := range []time.Duration{time.Hour, 3 * time.Second} {
			for _, name := range names() {
				t.Run(name+" "+what+" "+limit.String(), func(t *testing.T) {
					source := on(t, name)
					synctest.Test(t, func(t *testing.T) {
						source.transport = b.f
						ctx, cancel := context.WithTimeout(t.Context(), limit)
						defer cancel()
						start := time.Now()
						_, err := source.Find(ctx)
						took := time.Since(start)
						if fault.KindOf(err) != fault.Retry || !strings.Contains(strings.ToLower(err.Error()), b.why) {
							t.Errorf("%v, want %q", err, b.why)
						}
						if end := min(limit, Timeout); took > end || took < end-margin-2*time.Second {
							t.Errorf("it took %s of %s", took, end)
						}
						if ctx.Err() != nil {
							t.Error("the caller's deadline was reached before the reason was")
						}
					})
				})
			}
		}
	}
}

// TestCancel: a caller who waits no longer isn't kept.
func TestCancel(t *testing.T) {
	source := on(t, Hetzner)
	synctest.Test(t, func(t *testing.T) {
		source.transport = transport(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		if _, err := source.Find(ctx); err == nil || time.Since(start) > 2*time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
	})
}
