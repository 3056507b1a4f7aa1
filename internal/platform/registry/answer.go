package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// The codes of the distribution specification, "Error Codes".
const (
	codeBlobUnknown         = "BLOB_UNKNOWN"
	codeUploadInvalid       = "BLOB_UPLOAD_INVALID"
	codeUploadUnknown       = "BLOB_UPLOAD_UNKNOWN"
	codeDigestInvalid       = "DIGEST_INVALID"
	codeManifestBlobUnknown = "MANIFEST_BLOB_UNKNOWN"
	codeManifestInvalid     = "MANIFEST_INVALID"
	codeManifestUnknown     = "MANIFEST_UNKNOWN"
	codeNameInvalid         = "NAME_INVALID"
	codeNameUnknown         = "NAME_UNKNOWN"
	codeSizeInvalid         = "SIZE_INVALID"
	codeUnauthorized        = "UNAUTHORIZED"
	codeDenied              = "DENIED"
	codeUnsupported         = "UNSUPPORTED"
	codeTooManyRequests     = "TOOMANYREQUESTS"
	codeUnknown             = "UNKNOWN"
)

// refusal is an answer other than success.
type refusal struct {
	status  int
	code    string
	message string
	header  http.Header
}

func (e *refusal) Error() string { return e.message }

func refuse(status int, code, format string, args ...any) *refusal {
	return &refusal{status: status, code: code, message: fmt.Sprintf(format, args...), header: http.Header{}}
}

func unauthorized() error {
	e := refuse(http.StatusUnauthorized, codeUnauthorized, "a node's certificate or the operator's token is needed")
	e.header.Set("WWW-Authenticate", `Basic realm="powernode", charset="UTF-8"`)
	return e
}

// TooMany is what Authenticate returns for a caller that shows too many wrong credentials, and has to wait for so long.
func TooMany(wait time.Duration) error {
	seconds := int64((wait + time.Second - 1) / time.Second)
	e := refuse(http.StatusTooManyRequests, codeTooManyRequests, "too many wrong tokens from this address; ask again in %d s", seconds)
	e.header.Set("Retry-After", strconv.FormatInt(seconds, 10))
	return e
}

// only refuses methods that aren't in allowed.
func only(r *http.Request, allowed ...string) error {
	if slices.Contains(allowed, r.Method) {
		return nil
	}
	e := refuse(http.StatusMethodNotAllowed, codeUnsupported, "%s is not served here", r.Method)
	e.header.Set("Allow", strings.Join(allowed, ", "))
	return e
}

// answer writes an error in the specification's form. What isn't a refusal is the registry's own
// trouble: it is logged, and the caller learns no more than whether the disk is full.
func (g *Registry) answer(w http.ResponseWriter, r *http.Request, err error) {
	e, ok := errors.AsType[*refusal](err)
	switch {
	case ok:
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		g.log.Error("registry: the disk is full", "method", r.Method, "path", r.URL.Path, "error", err)
		e = refuse(http.StatusInsufficientStorage, codeUnknown, "no space left on the registry's disk; make room there and push again")
	case fault.KindOf(err) == fault.Retry && r.Context().Err() == nil:
		g.log.Error("registry: request failed for now", "method", r.Method, "path", r.URL.Path, "error", err, "hint", fault.HintOf(err))
		e = refuse(http.StatusServiceUnavailable, codeUnknown, "the registry can't do this at the moment; see the platform's log, and ask again")
	case r.Context().Err() != nil:
		g.log.Info("registry: the caller went away", "method", r.Method, "path", r.URL.Path)
		return
	default:
		g.log.Error("registry: request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		e = refuse(http.StatusInternalServerError, codeUnknown, "internal error; see the platform's log")
	}
	for key, values := range e.header {
		w.Header()[key] = values
	}
	type item struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	body, _ := json.Marshal(map[string][]item{"errors": {{e.code, e.message}}})
	w.Header().Set("Content-Type", "application/json")
	w.Header().Del("Content-Length")
	w.WriteHeader(e.status)
	if r.Method != http.MethodHead {
		// A caller that went away needs no answer.
		_, _ = w.Write(body)
	}
}

func writeJSON(w http.ResponseWriter, contentType string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	// From here on the status is sent: an error can only mean that the caller went away.
	_, _ = w.Write(body)
	return nil
}
