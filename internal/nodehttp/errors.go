package nodehttp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
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

// StatusError is what the platform said when it refused or failed a call.
type StatusError struct {
	// Status is the HTTP status, Code the envelope's code or "".
	Status int
	Code   nodeapi.Code
	// Message is the envelope's error text, cleaned; "" where there was none.
	Message string
	// RetryAfter is how long the platform asks to wait, at most 10 minutes; 0 where it doesn't say.
	RetryAfter time.Duration
}

// Error returns the status, the code and the text.
func (e *StatusError) Error() string {
	s := "the platform answered " + strconv.Itoa(e.Status)
	if e.Code != "" {
		s += " " + string(e.Code)
	} else if t := http.StatusText(e.Status); t != "" {
		s += " " + t
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// RetryAfter returns how long the platform asked to wait, or 0.
func RetryAfter(err error) time.Duration {
	if e, ok := errors.AsType[*StatusError](err); ok {
		return e.RetryAfter
	}
	return 0
}

// StatusOf returns the HTTP status of a refused or failed call, or 0 where no answer came.
func StatusOf(err error) int {
	if e, ok := errors.AsType[*StatusError](err); ok {
		return e.Status
	}
	return 0
}

// CodeOf returns the envelope's code of a refused or failed call, or "".
func CodeOf(err error) nodeapi.Code {
	if e, ok := errors.AsType[*StatusError](err); ok {
		return e.Code
	}
	return ""
}

// ErrValidity says that the server's certificate isn't valid by the clock of the connection. Either may be wrong.
var ErrValidity = errors.New("the server's certificate isn't valid at this time")

// validity is a text for ErrValidity that says more.
type validity string

func (v validity) Error() string     { return string(v) }
func (v validity) Is(err error) bool { return err == ErrValidity }

// ErrOwnCertificate is in the chain where the platform ended the handshake because of the node's certificate: it has
// ended by the platform's clock, or the CA that issued it doesn't count there any more.
var ErrOwnCertificate = errors.New("the platform refuses this node's certificate")

const maxRetryAfter = 10 * time.Minute

var (
	errTimeout = errors.New("call timed out")
	errStalled = errors.New("call stalled")
)

const (
	hintNotPlatform = "check that the platform URL names a Powernode platform and not a proxy's page"
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
		return f.new(fault.Retry, hintReach, "the platform sent nothing for %s", f.conn.options.Stall)
	case errors.Is(cause, errTimeout):
		return f.new(fault.Retry, hintReach, "no complete answer within %s", f.conn.options.Timeout)
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
		return f.new(fault.Retry, "the same call is safe to repeat; if it stays so, look into the platform's log",
			"the connection%s broke before the answer was complete: %w", via, err)
	}
	return f.new(fault.Retry, hintReach, "no answer%s: %w", via, err)
}

// parseRetryAfter reads both forms of the header (RFC 9110, 10.2.3), bounded to maxRetryAfter.
func parseRetryAfter(h string, now time.Time) time.Duration {
	var d time.Duration
	if n, err := strconv.ParseUint(h, 10, 32); err == nil {
		d = time.Duration(n) * time.Second
	} else if t, err := http.ParseTime(h); err == nil {
		d = t.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}

// tls classifies what a TLS handshake, or the peer's certificate, may be refused for; nil means
// that it was something else.
func (f *failure) tls(err error) error {
	if e, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		issuer := "unknown"
		if e.Cert != nil {
			issuer = clean(e.Cert.Issuer.String(), 80)
		}
		return f.new(fault.Refuse, hintCA, "the server's certificate (issuer %s) isn't signed by the CA that this node trusts (%s)",
			issuer, clean(f.conn.material.CAs[0].Subject.String(), 80))
	}
	if errors.Is(err, errNeverValid) {
		return f.new(fault.Refuse, "renew the platform's certificate", "%w", errNeverValid)
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return f.invalid(e)
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		names := append([]string{}, e.Certificate.DNSNames...)
		for _, ip := range e.Certificate.IPAddresses {
			names = append(names, ip.String())
		}
		if len(names) == 0 {
			names = []string{"no name at all"}
		}
		return f.new(fault.Refuse, "use one of the certificate's names in the platform URL, or give the platform a certificate for this name",
			"the server's certificate is for %s, not for %s", clean(strings.Join(names, ", "), 120), clean(e.Host, 100))
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return f.new(fault.Refuse, hintCA, "the server's certificate is refused: %s", clean(e.Err.Error(), 160))
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		return f.new(fault.Refuse, "check the port in the platform URL", "the server there doesn't speak TLS")
	}
	if strings.Contains(err.Error(), "protocol version") {
		return f.new(fault.Refuse, "let the platform, or the proxy before it, speak TLS 1.3", "the server there doesn't speak TLS 1.3")
	}
	// crypto/tls marks a peer's alert only by the operation's name.
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "remote error" {
		if strings.Contains(e.Err.Error(), "certificate") {
			return f.new(fault.Refuse, hintOwnCert, "%w: %w", ErrOwnCertificate, e.Err)
		}
		return f.new(fault.Refuse, hintNotPlatform, "the server ended the TLS handshake: %w", e.Err)
	}
	return nil
}

// invalid tells a wrong clock from an expired certificate as far as one machine can: it names both
// times. The clock, or the platform's certificate, may be mended with nothing changed here, hence Retry.
func (f *failure) invalid(e x509.CertificateInvalidError) error {
	now := f.conn.options.Now()
	stamp := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	switch {
	case e.Reason == x509.Expired && e.Cert != nil && now.Before(e.Cert.NotBefore):
		return f.new(fault.Retry, "set this machine's clock; if it is right, the platform's is ahead", "%w",
			validity(fmt.Sprintf("this machine's clock says %s, before the server's certificate begins (%s)", stamp(now), stamp(e.Cert.NotBefore))))
	case e.Reason == x509.Expired && e.Cert != nil:
		return f.new(fault.Retry, "check this machine's clock; if it is right, renew the platform's certificate", "%w",
			validity(fmt.Sprintf("the server's certificate (%s) ended at %s, and this machine's clock says %s",
				clean(e.Cert.Subject.String(), 80), stamp(e.Cert.NotAfter), stamp(now))))
	}
	return f.new(fault.Refuse, hintCA, "the server's certificate is refused: %s", clean(e.Error(), 160))
}
