package api

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/openapi"
)

// PathOpenAPI is where the platform serves the description of these interfaces.
const PathOpenAPI = "/api/v1/openapi.json"

// document is the OpenAPI document, made once: it is the same for everybody.
var document = sync.OnceValues(OpenAPI)

// openAPI serves the OpenAPI document. It is for everyone, and says nothing of this platform in particular.
func (a *API) openAPI(w http.ResponseWriter, r *http.Request) {
	text, err := document()
	if err != nil {
		a.problemOf(r, fmt.Errorf("make the OpenAPI document: %w", err)).write(w, r)
		return
	}
	sum := sha256.Sum256(text)
	tag := `"` + hex.EncodeToString(sum[:16]) + `"`
	w.Header().Set("ETag", tag)
	w.Header().Set("Cache-Control", "public, max-age=3600")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", fmt.Sprint(len(text)))
	// A caller that went away needs no answer.
	_, _ = w.Write(text)
}

const openAPIText = "What nodes and operators say to powernode-platform. Every answer but this document's is one JSON object, the envelope: " +
	"`success` with `data`, or with `error`, `code` and `details`. Texts are bounded in bytes of UTF-8, where their maxLength counts characters. " +
	"Nodes' requests may have fields that the platform doesn't know; operators' may not. Answers may have further fields in later versions, and closed sets of " +
	"values further values. A path that isn't here is 404, a method that isn't here 405, both with the code `NOT_FOUND`. " +
	"The OCI registry below /v2/ is that of the OCI distribution specification."

// OpenAPI returns the OpenAPI 3.1 document of the node_api and the operator API, as JSON. Each route has a call in it, and each call a
// route: else that is an error.
func OpenAPI() ([]byte, error) {
	said := map[string]openapi.Call{}
	for _, c := range append(nodeCalls(), operatorCalls()...) {
		c.Method, c.Path, _ = strings.Cut(c.Path, " ")
		if _, twice := said[c.Method+" "+c.Path]; twice {
			return nil, errors.New("said twice: " + c.Method + " " + c.Path)
		}
		said[c.Method+" "+c.Path] = c
	}
	var calls []openapi.Call
	add := func(method, path string, settle func(*openapi.Call)) error {
		c, ok := said[method+" "+path]
		if !ok {
			return errors.New("nothing is said of " + method + " " + path)
		}
		delete(said, method+" "+path)
		settle(&c)
		calls = append(calls, c)
		return nil
	}
	var errs []error
	for _, n := range nodeRoutes() {
		errs = append(errs, add(n.Method, n.Path, func(c *openapi.Call) { settleNode(c, n.Anyone) }))
	}
	for _, o := range operatorRoutes() {
		errs = append(errs, add(o.Method, o.Path, func(c *openapi.Call) { settleOperator(c, o) }))
	}
	errs = append(errs, add(http.MethodGet, PathOpenAPI, func(c *openapi.Call) { settle(c) }))
	for name := range said {
		errs = append(errs, errors.New("no route for "+name))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return openapi.Build(openapi.Options{
		Title: "Powernode platform", Version: fmt.Sprint(nodeapi.Version), Description: openAPIText, Calls: calls,
		Parameters: map[string]string{
			"node": "A node's ID or name.", "module": "A module's ID; for operators its name, too.", "task": "A task's ID.",
			"operator": "The name of an operator's token.", "code": "A claim code, in either case, with a hyphen or without.",
		},
		Rules: wireRules(), Needed: neededFields(), Strict: []string{"operatorapi"},
		Headers: []openapi.Header{{Name: HeaderRequestID, Description: "The request's ID, as in the platform's log."}},
	})
}

// Errors of several calls.
func refused(status int, code nodeapi.Code, when string) openapi.Error {
	return openapi.Error{Status: status, Code: code, When: when}
}

func missing(what string) openapi.Error {
	return refused(http.StatusBadRequest, nodeapi.CodeParameterMissing, what+" is needed")
}

func unprocessable(when string) openapi.Error {
	return refused(http.StatusUnprocessableEntity, nodeapi.CodeValidation, when)
}

func unknown(when string) openapi.Error {
	return refused(http.StatusNotFound, nodeapi.CodeNotFound, when)
}

func conflicting(when string) openapi.Error {
	return refused(http.StatusConflict, nodeapi.CodeConflict, when)
}

// settle adds what follows from what is said.
func settle(c *openapi.Call) {
	c.Errors = append(c.Errors,
		refused(http.StatusBadRequest, nodeapi.CodeValidation, "a client's certificate in a header, and not as a trusted proxy passes it"),
		refused(http.StatusUnauthorized, nodeapi.CodeCertificateExpired, "a proxy passes on a certificate that is outside its validity, or of another authority"))
	if len(c.Requests) > 0 {
		c.Errors = append(c.Errors,
			refused(http.StatusBadRequest, nodeapi.CodeValidation, "the body isn't the JSON that is wanted, or ended early"),
			refused(http.StatusRequestEntityTooLarge, nodeapi.CodeTooLarge, "the body is longer than the call takes"))
	}
	if c.Caller == openapi.Anyone {
		c.Errors = append(c.Errors, refused(http.StatusTooManyRequests, nodeapi.CodeTooManyRequests, "too many calls from this address"))
	}
}

// troubled adds the platform's own trouble to a call that needs the database.
func troubled(c *openapi.Call) {
	c.Errors = append(c.Errors, refused(http.StatusInternalServerError, nodeapi.CodeInternal,
		"the platform's own trouble: 500; 503 where asking again may help, with Retry-After; 507 when its disk is full"))
}

func settleNode(c *openapi.Call, anyone bool) {
	if !anyone {
		c.Caller = openapi.ANode
		c.Errors = append(c.Errors,
			refused(http.StatusUnauthorized, nodeapi.CodeUnauthorized, "no certificate, or one that isn't on file"),
			refused(http.StatusUnauthorized, nodeapi.CodeCertificateRevoked, "an operator, or a new enrollment, ended the certificate"),
			refused(http.StatusUnauthorized, nodeapi.CodeCertificateSuperseded, "the certificate's successor has been used"),
			refused(http.StatusUnauthorized, nodeapi.CodeCertificateExpired, "the certificate is outside its validity"),
			refused(http.StatusUnauthorized, nodeapi.CodeNodeInactive, "the node was taken out of service"),
			refused(http.StatusTooManyRequests, nodeapi.CodeTooManyRequests, "the node has too many calls under way"))
	}
	settle(c)
	// The time and the authorities are the platform's own.
	if c.Path != nodeapi.PathTime && c.Path != nodeapi.PathCA {
		troubled(c)
	}
}

func settleOperator(c *openapi.Call, o OperatorRoute) {
	c.Caller = openapi.AnOperator
	c.Needs = "Needs the role " + string(o.Role) + "."
	if o.Action != "" {
		c.Needs += " In the audit log as `" + o.Action + "`."
	}
	c.Headers = []openapi.Header{{Name: operatorapi.HeaderCABundle, Description: "The SHA-256 of the CA bundle that is to be trusted."}}
	c.Errors = append(c.Errors, refused(http.StatusUnauthorized, nodeapi.CodeUnauthorized, "no operator's token, or another"),
		refused(http.StatusTooManyRequests, nodeapi.CodeTooManyRequests, "too many wrong tokens from this address; one that was good here lately is answered all the same"))
	if o.Role != operatorapi.Roles()[0] {
		c.Errors = append(c.Errors, refused(http.StatusForbidden, nodeapi.CodeForbidden, "the token's role isn't enough"))
	}
	if len(c.Requests) > 0 && c.MaxBody == 0 {
		c.MaxBody = maxOperatorBody
	}
	if strings.Contains(c.Path, "{node}") && !slices.ContainsFunc(c.Errors, func(e openapi.Error) bool { return e.Status == http.StatusNotFound }) {
		c.Errors = append(c.Errors, unknown("there is no such node"))
	}
	settle(c)
	troubled(c)
}
