package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"syscall"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// bodyTimeout is how long a caller may take to send a request's body.
const bodyTimeout = 30 * time.Second

// maxOperatorBody bounds an operator's request in bytes, where a call has no bound of its own.
const maxOperatorBody = 64 << 10

// retryAfter is how many seconds a caller is told to wait where the platform can't do its work for now.
const retryAfter = "5"

// handler answers one kind of request: data for the envelope, or an error.
type handler func(w http.ResponseWriter, r *http.Request) (any, error)

// problem is an answer other than success.
type problem struct {
	status int
	code   nodeapi.Code
	text   string
	hint   string
}

// Error returns the text that the caller gets.
func (p *problem) Error() string { return p.text }

func refuse(status int, code nodeapi.Code, format string, args ...any) *problem {
	return &problem{status: status, code: code, text: fmt.Sprintf(format, args...)}
}

func (p *problem) withHint(hint string) *problem {
	p.hint = hint
	return p
}

// invalid refuses a value that the caller sent.
func invalid(format string, args ...any) *problem {
	return refuse(http.StatusUnprocessableEntity, nodeapi.CodeValidation, format, args...)
}

// refusedAs gives a refusal of what a node has to tell the code by which the node knows that it is about just that, and for good.
func refusedAs(code nodeapi.Code, err error) error {
	if p, ok := errors.AsType[*problem](err); ok {
		return &problem{status: http.StatusUnprocessableEntity, code: code, text: p.text, hint: p.hint}
	}
	return err
}

// answering puts what serve returns into the envelope.
func (a *API) answering(serve handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		boundBody(w, r)
		data, err := serve(w, r)
		env := nodeapi.Envelope{Success: err == nil}
		if err == nil {
			env.Data, err = json.Marshal(data)
		}
		if err != nil {
			p := a.problemOf(r, err)
			if p.status == http.StatusServiceUnavailable {
				w.Header().Set("Retry-After", retryAfter)
			}
			p.write(w, r)
			return
		}
		write(w, http.StatusOK, env)
	})
}

// Refuse answers a request that goes no further, as the API does.
func Refuse(w http.ResponseWriter, r *http.Request, status int, code nodeapi.Code, text string) {
	refuse(status, code, "%s", text).write(w, r)
}

// write answers with the problem.
func (p *problem) write(w http.ResponseWriter, r *http.Request) {
	env := nodeapi.Envelope{Error: p.text, Code: p.code}
	if details := (operatorapi.Details{Hint: p.hint, RequestID: RequestID(r.Context())}); details != (operatorapi.Details{}) {
		env.Details, _ = json.Marshal(details)
	}
	write(w, p.status, env)
}

func write(w http.ResponseWriter, status int, env nodeapi.Envelope) {
	body, err := json.Marshal(env)
	if err != nil {
		// Nothing in an envelope can fail to be encoded but Data, which was.
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// A caller that went away needs no answer.
	_, _ = w.Write(body)
}

// asProblem returns err as an answer other than success, if it is one.
func asProblem(err error) (*problem, bool) { return errors.AsType[*problem](err) }

// problemOf decides what the caller learns of an error. Faults that refuse tell their reason;
// what went wrong inside is logged, and told only as such.
func (a *API) problemOf(r *http.Request, err error) *problem {
	if p, ok := asProblem(err); ok {
		return p
	}
	hint := fault.HintOf(err)
	switch kind, area := fault.KindOf(err), fault.AreaOf(err); {
	case errors.Is(err, db.ErrNotFound):
		return refuse(http.StatusNotFound, nodeapi.CodeNotFound, "not found")
	case kind == fault.Refuse && area == fault.Verify:
		return refuse(http.StatusUnprocessableEntity, operatorapi.CodeSealRefused, "%v", err).withHint(hint)
	case kind == fault.Refuse:
		return invalid("%v", err).withHint(hint)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), kind == fault.Retry && area == fault.Mount:
		a.log.Error("the disk is full", "request", RequestID(r.Context()), "method", r.Method, "path", r.URL.Path, "error", err)
		return refuse(http.StatusInsufficientStorage, nodeapi.CodeInternal, "no space left on the platform's disk").withHint(hint)
	case kind == fault.Retry && r.Context().Err() == nil:
		a.log.Error("request failed for now", "request", RequestID(r.Context()), "method", r.Method, "path", r.URL.Path, "error", err, "hint", hint)
		return refuse(http.StatusServiceUnavailable, nodeapi.CodeInternal, "the platform can't do this at the moment; see its log, and ask again")
	case r.Context().Err() != nil:
		return refuse(http.StatusServiceUnavailable, nodeapi.CodeInternal, "the caller went away, or the platform is stopping")
	default:
		a.log.Error("request failed", "request", RequestID(r.Context()), "method", r.Method, "path", r.URL.Path, "error", err)
		return refuse(http.StatusInternalServerError, nodeapi.CodeInternal, "internal error; see the platform's log")
	}
}

// boundBody bounds how long a request's body may take whoever reads it. A handler that doesn't read it leaves it to net/http, which
// reads on after the answer, to use the connection again, and has no bound of its own.
func boundBody(w http.ResponseWriter, r *http.Request) {
	if r.Body != nil && r.Body != http.NoBody {
		// A connection without deadlines, as in tests without a network, needs none.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	}
}

// read decodes a request's JSON body of at most limit bytes. Unknown fields pass: a peer may be
// newer.
func read[T any](w http.ResponseWriter, r *http.Request, limit int64) (T, error) {
	var v T
	data, err := readBody(w, r, limit)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return v, refuse(http.StatusBadRequest, nodeapi.CodeValidation, "the request's body isn't the JSON that is wanted: %v", err)
	}
	return v, nil
}

// readStrict is read for operators, whose mistyped fields are told.
func readStrict[T any](w http.ResponseWriter, r *http.Request) (T, error) {
	var v T
	data, err := readBody(w, r, maxOperatorBody)
	if err != nil {
		return v, err
	}
	if err := durable.DecodeJSON(data, &v); err != nil {
		return v, refuse(http.StatusBadRequest, nodeapi.CodeValidation, "the request's body isn't the JSON that is wanted: %v", err)
	}
	return v, nil
}

// readBody reads a request's body of at most limit bytes. While the rest of the call is under way there is no bound on the connection: its
// passing would be taken for the caller's going away. What wasn't read to its end keeps the bound of boundBody.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, refuse(http.StatusRequestEntityTooLarge, nodeapi.CodeTooLarge, "a body of more than %d bytes", limit)
	}
	if err != nil {
		return nil, refuse(http.StatusBadRequest, nodeapi.CodeValidation, "the request's body ended early")
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return data, nil
}
