package ociimage

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

	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/powernode/powernode-agent/internal/fault"
)

// classify gives an error of talking to a registry its kind and its remedy. doing says what was
// being done to what. Errors that have a kind, or are the caller's own cancellation, keep theirs.
func classify(err error, host, doing string) error {
	var refused *errcode.ErrorResponse
	_, classified := errors.AsType[*fault.Error](err)
	switch {
	case err == nil:
		return nil
	case classified, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", doing, err)
	case errors.Is(err, errdef.ErrNotFound):
		return notFound(doing, err)
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return fault.New(fault.Refuse, fault.Platform, "give the credentials for "+host, "%s: %w", doing, err)
	case errors.As(err, &refused):
		return classifyStatus(refused.StatusCode, host, doing, answered{refused})
	case errors.Is(err, http.ErrSchemeMismatch):
		return fault.New(fault.Refuse, fault.Platform, "check the address: "+host+" speaks plain http", "%s: %w", doing, err)
	case isCertificateError(err):
		return fault.New(fault.Refuse, fault.Platform, "check the CA that this side pins, the certificate of "+host+" and both clocks",
			"%s: %w", doing, err)
	default:
		return fault.New(fault.Retry, fault.Platform, "check that "+host+" can be reached", "%s: %w", doing, err)
	}
}

func classifyStatus(status int, host, doing string, err error) error {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return fault.New(fault.Refuse, fault.Platform, "check the credentials for "+host, "%s: %w", doing, err)
	case status == http.StatusNotFound:
		return notFound(doing, err)
	case retryable(status):
		return fault.New(fault.Retry, fault.Platform, "try again later", "%s: %w", doing, err)
	default:
		return fault.New(fault.Refuse, fault.Platform, "", "%s: %w", doing, err)
	}
}

func notFound(doing string, err error) error {
	return fault.New(fault.Refuse, fault.Platform, "check the name, and that it was published",
		"%s: the registry doesn't have it: %w", doing, errNotFound{err})
}

// errNotFound is what isNotFound looks for, whichever way a registry said it.
type errNotFound struct{ error }

func (e errNotFound) Unwrap() error { return e.error }

func isNotFound(err error) bool {
	_, ok := errors.AsType[errNotFound](err)
	return ok
}

// IsUnauthorized says whether a registry wanted credentials that there were none of, or didn't take those that there were.
func IsUnauthorized(err error) bool {
	if errors.Is(err, auth.ErrBasicCredentialNotFound) {
		return true
	}
	refused, ok := errors.AsType[*errcode.ErrorResponse](err)
	return ok && (refused.StatusCode == http.StatusUnauthorized || refused.StatusCode == http.StatusForbidden)
}

// IsUnknownAuthority says whether a registry's certificate is of an authority that this side doesn't know.
func IsUnknownAuthority(err error) bool {
	_, ok := errors.AsType[x509.UnknownAuthorityError](err)
	return ok
}

// retryable says whether a status may be another one later.
func retryable(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return false
	}
	return status >= 500
}

// isCertificateError says whether TLS failed over who is who, which no repetition changes.
func isCertificateError(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return true
	}
	// The other side's verdict on our certificate comes as a TLS alert, whose type isn't exported.
	alert, ok := errors.AsType[*net.OpError](err)
	return ok && alert.Op == "remote error"
}

// saidMax bounds, in characters, what is kept of a registry's own words.
const saidMax = 300

// answered is a registry's refusal, in words that fit into a message: on one line, printable and
// bounded, whatever the registry said.
type answered struct{ *errcode.ErrorResponse }

func (e answered) Error() string {
	said := http.StatusText(e.StatusCode)
	if len(e.Errors) > 0 {
		said = e.Errors.Error()
	}
	return fmt.Sprintf("%s %.*q: response status code %d: %.*s", e.Method, saidMax, e.URL, e.StatusCode, saidMax, fault.OneLine(said))
}

func (e answered) Unwrap() error { return e.ErrorResponse }

// answerError makes an error of an answer that isn't what was asked for.
func answerError(resp *http.Response) error {
	var body struct {
		Errors errcode.Errors `json:"errors"`
	}
	// The body is an explanation for people; whatever is wrong with it doesn't matter.
	_ = json.NewDecoder(io.LimitReader(resp.Body, 8<<10)).Decode(&body)
	if len(body.Errors) > 3 {
		body.Errors = body.Errors[:3]
	}
	return &errcode.ErrorResponse{Method: resp.Request.Method, URL: resp.Request.URL, StatusCode: resp.StatusCode, Errors: body.Errors}
}
