package ociimage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"oras.land/oras-go/v2/registry/remote/retry"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Retrying says how often and how patiently requests are repeated that failed for reasons that
// may pass. Waiting times double from Min to Max.
type Retrying struct {
	// Attempts is how often in a row something may fail; 0 means 6. For a download, each byte
	// that arrives begins a new row.
	Attempts int
	// Min and Max bound the waiting times; 0 means 250 ms and 15 s.
	Min, Max time.Duration
}

func (r Retrying) withDefaults() Retrying {
	if r.Attempts == 0 {
		r.Attempts = 6
	}
	if r.Min == 0 {
		r.Min = 250 * time.Millisecond
	}
	if r.Max == 0 {
		r.Max = 15 * time.Second
	}
	return r
}

func (r Retrying) policy() retry.Policy {
	return &retry.GenericPolicy{
		Retryable: shouldRetry,
		Backoff:   retry.ExponentialBackoff(r.Min, 2, 0.2),
		MinWait:   r.Min,
		MaxWait:   r.Max,
		MaxRetry:  r.Attempts - 1,
	}
}

func shouldRetry(resp *http.Response, err error) (bool, error) {
	if err == nil {
		return retryable(resp.StatusCode), nil
	}
	_, decided := errors.AsType[*fault.Error](err)
	return !decided && !isCertificateError(err) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded), nil
}

// guard is the innermost transport. It lets no request out in the clear, whatever redirected it,
// and ends one that no byte of has moved for a while.
type guard struct {
	base http.RoundTripper
	// plainLoopback allows http to loopback addresses.
	plainLoopback bool
	stall         time.Duration
}

// RoundTrip sends one request.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := g.check(req.URL); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	w := &watchdog{stall: g.stall, cancel: cancel}
	silence := &stallError{after: g.stall, host: req.URL.Host}
	w.timer = time.AfterFunc(g.stall, func() { cancel(silence) })
	req = req.Clone(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = &watchedBody{ReadCloser: req.Body, ctx: ctx, dog: w, pauses: false}
	}
	resp, err := g.base.RoundTrip(req)
	if err != nil {
		w.stop()
		return nil, stalled(ctx, err)
	}
	w.timer.Stop()
	resp.Body = &watchedBody{ReadCloser: resp.Body, ctx: ctx, dog: w, pauses: true}
	return resp, nil
}

func (g *guard) check(u *url.URL) error {
	switch {
	case u.Scheme == "https", u.Scheme == "http" && g.plainLoopback && isLoopback(u.Hostname()):
		return nil
	case u.Scheme == "http" && g.plainLoopback:
		return fault.New(fault.Refuse, fault.Input, "use https", "refusing plain http to %s, which is not a loopback address", u.Host)
	default:
		return fault.New(fault.Refuse, fault.Platform, "use https", "refusing to follow the registry from https to %.20s://%.100q", u.Scheme, u.Host)
	}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// watchdog cancels a request that makes no progress.
type watchdog struct {
	stall  time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

func (w *watchdog) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// watchedBody resets the watchdog with each read. A response's reader may take as long as it
// likes between reads; a request's body is read by the transport, and while that waits for the
// network, time counts.
type watchedBody struct {
	io.ReadCloser
	ctx    context.Context
	dog    *watchdog
	pauses bool
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.dog.timer.Reset(b.dog.stall)
	n, err := b.ReadCloser.Read(p)
	if b.pauses {
		b.dog.timer.Stop()
	}
	if err != nil && err != io.EOF { //nolint:errorlint // the unwrapped end of the body
		err = stalled(b.ctx, err)
	}
	return n, err
}

func (b *watchedBody) Close() error {
	err := b.ReadCloser.Close()
	if b.pauses {
		b.dog.stop()
	}
	return err
}

// stalled names the watchdog as the cause where it was.
func stalled(ctx context.Context, err error) error {
	if s, ok := errors.AsType[*stallError](context.Cause(ctx)); ok {
		return s
	}
	return err
}

// stallError is a net.Error, so that whoever looks for timeouts finds one.
type stallError struct {
	after time.Duration
	host  string
}

func (e *stallError) Error() string {
	return fmt.Sprintf("nothing came from %s for %v", e.host, e.after)
}
func (*stallError) Timeout() bool   { return true }
func (*stallError) Temporary() bool { return true }
