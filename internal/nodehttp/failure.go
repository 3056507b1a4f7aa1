package nodehttp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
)

const maxRetryAfter = 10 * time.Minute

const (
	hintNotPlatform = "check that the platform URL names a Powernode platform and not a proxy's page"
	hintRepeat      = "the same call is safe to repeat; if it stays so, look into the platform's log"
	hintReach       = "check the platform's URL, that the platform runs, and the network between"
	hintCA          = "give the node the CA certificate of this platform, and check that nothing intercepts the connection"
	hintOwnCert     = "see the certificate with `powernode-agent introspect`; a new token enrolls the node again"
)

// failure turns what went wrong with one call into an error with kind, area and remedy.
type failure struct {
	conn   *Conn
	call   Call
	parent context.Context // the caller's
	ctx    context.Context // the call's own
}

func (f *failure) new(kind fault.Kind, hint, format string, args ...any) error {
	return fault.New(kind, fault.Platform, hint, "%s at %s: %w", f.call.Doing, f.conn.base, fmt.Errorf(format, args...))
}

// status classifies an answer that isn't a success.
func (f *failure) status(resp *http.Response, env nodeapi.Envelope) error {
	hide := func(text string) string {
		for _, s := range f.call.Secrets {
			if !s.IsZero() {
				text = strings.ReplaceAll(text, s.Reveal(), s.String())
			}
		}
		return text
	}
	e := &StatusError{
		Status: resp.StatusCode, Code: nodeapi.Code(clean(string(env.Code), 40)), Message: clean(hide(env.Error), 200),
		RetryAfter: parseRetryAfter(resp.Header.Get("Retry-After"), f.conn.options.Now()),
	}
	kind, hint := fault.Refuse, ""
	switch s := resp.StatusCode; {
	case s == http.StatusTooManyRequests:
		kind, hint = fault.Retry, "the platform asks to wait"
	case s == http.StatusRequestTimeout, s == http.StatusTooEarly, s >= 500:
		kind, hint = fault.Retry, "look into the platform's log"
	case s == http.StatusUnauthorized, s == http.StatusForbidden:
		hint = hintOwnCert
	case s == http.StatusNotFound && e.Code == "":
		hint = hintNotPlatform
	case s == http.StatusNotFound:
		hint = "see what the platform knows of this node with `powernode node list`"
	case e.Code == nodeapi.CodeTokenRefused:
		hint = "make a new token with `powernode token create` and give it to the node"
	case s < 400:
		// A 2xx whose envelope says no.
		kind, hint = fault.Broken, "look into the platform's log"
	}
	if hint == "" {
		// The platform may know what we don't.
		var details struct {
			Hint string `json:"hint"`
		}
		if json.Unmarshal(env.Details, &details) == nil {
			hint = clean(hide(details.Hint), 160)
		}
	}
	return f.new(kind, hint, "%w", e)
}

// redirect refuses to follow one, and says where it led.
func (f *failure) redirect(resp *http.Response) error {
	to := "elsewhere"
	if u, err := url.Parse(resp.Header.Get("Location")); err == nil && u.Host != "" {
		to = clean(u.Scheme+"://"+u.Host, 100)
	}
	return f.new(fault.Refuse, "set the platform URL to the platform's own address",
		"the answer is a redirect (%d) to %s, and redirects aren't followed", resp.StatusCode, to)
}

// transport classifies a call that got no complete answer.
func (f *failure) transport(err error) error {
	switch cause := context.Cause(f.ctx); {
	case f.parent.Err() != nil && errors.Is(f.parent.Err(), context.Canceled):
		return fmt.Errorf("%s at %s: %w", f.call.Doing, f.conn.base, context.Cause(f.parent))
	case f.parent.Err() != nil:
		return f.new(fault.Retry, hintReach, "no answer in the time that was allowed: %w", f.parent.Err())
	case errors.Is(cause, errStalled):
		return f.new(fault.Retry, hintReach, "the platform sent nothing for %s", f.conn.options.Stall+f.call.Wait)
	case errors.Is(cause, errTimeout):
		return f.new(fault.Retry, hintReach, "no complete answer within %s", f.conn.options.Timeout+f.call.Wait)
	case errors.Is(cause, errBroken):
		return f.new(fault.Retry, hintRepeat, "%d connections broke before there was an answer", mostSends)
	}
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err // its text repeats method and URL
	}
	if e := f.tls(err); e != nil {
		return e
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		what := "the name %q can't be resolved (%s)"
		if e.IsNotFound {
			what = "there is no host named %q (%s)"
		}
		return f.new(fault.Retry, "check the name in the platform URL, and /etc/resolv.conf", what, clean(e.Name, 100), clean(e.Err, 80))
	}
	via := ""
	if f.conn.options.Proxy != nil {
		via = " through the proxy " + f.conn.options.Proxy.Redacted()
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return f.new(fault.Retry, hintReach, "nothing listens there%s: %w", via, err)
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return f.new(fault.Retry, hintReach, "there is no way to that address%s: %w", via, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return f.new(fault.Retry, hintRepeat,
			"the connection%s broke before the answer was complete: %w", via, err)
	}
	return f.new(fault.Retry, hintReach, "no answer%s: %w", via, err)
}

// parseRetryAfter reads both forms of the header (RFC 9110, 10.2.3), bounded to maxRetryAfter.
func parseRetryAfter(h string, now time.Time) time.Duration {
	var d time.Duration
	if n, err := strconv.ParseUint(h, 10, 32); err == nil || errors.Is(err, strconv.ErrRange) {
		d = time.Duration(n) * time.Second
	} else if t, err := http.ParseTime(h); err == nil {
		d = t.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}
