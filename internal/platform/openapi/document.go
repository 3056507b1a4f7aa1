// Package openapi makes the OpenAPI 3.1 document of the platform's HTTP interfaces out of the structs that go over the wire and a
// list of calls.
//
// It promises that names, types and optional fields are those of the structs, descriptions and closed sets of values those of
// their sources, and that a rule about a field which isn't there is an error. What a call takes and answers, and with which errors, is its
// caller's word, which tests of the platform hold against real answers. It trusts its caller.
package openapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// Caller says who may make a call.
type Caller int

// The callers.
const (
	Anyone Caller = iota
	ANode
	AnOperator
)

// Error is an answer other than success. When says for what, in a clause; the same status and code may be there twice.
type Error struct {
	Status int
	Code   nodeapi.Code
	When   string
}

// Parameter is one of the query.
type Parameter struct {
	Name string
	// Type is a zero value of what it takes, and Rule is about its values.
	Type        any
	Rule        Rule
	Description string
	// Needed says that the call is refused without it.
	Needed bool
}

// Header is one of every answer to a call.
type Header struct{ Name, Description string }

// Call is one method at one path.
type Call struct {
	Method, Path string
	ID           string
	Summary      string
	Description  string
	Caller       Caller
	// Needs is what the caller must have beside a token, as a sentence; "" is nothing.
	Needs string
	// Query are the parameters after the path's.
	Query []Parameter
	// Requests are zero values of what the body may be; none is no body. It has at most MaxBody bytes.
	Requests []any
	MaxBody  int64
	// Answer is a zero value of the data of a success. Plain says that the answer isn't in the envelope, but any object.
	Answer any
	Plain  bool
	Errors []Error
	// Headers are those of its answers beside the ones that all have.
	Headers []Header
}

// Options is what a document is made of.
type Options struct {
	Title, Description, Version string
	Calls                       []Call
	// Parameters says what the placeholders of paths take.
	Parameters map[string]string
	Rules      Rules
	Needed     Needed
	// Strict are the packages in whose requests unknown fields are refused.
	Strict []string
	// Headers are those of every answer.
	Headers []Header
}

type object = map[string]any

// Build returns the document, as JSON.
func Build(o Options) ([]byte, error) {
	w, err := readWords()
	if err != nil {
		return nil, err
	}
	b := &builder{Options: o, schemas: schemas{rules: o.Rules, needed: o.Needed, strict: o.Strict, words: w, known: map[string]*Schema{}, used: map[string]bool{}}, headers: object{}}
	// All answers before all requests: see component.
	answers := make([]*Schema, len(o.Calls))
	for i, c := range o.Calls {
		if c.Plain {
			answers[i] = &Schema{Type: "object"}
			continue
		}
		data, err := b.schemas.of(reflect.TypeOf(c.Answer), false, Rule{})
		if err != nil {
			return nil, fmt.Errorf("the answer of %s %s: %w", c.Method, c.Path, err)
		}
		answers[i] = &Schema{
			Type: "object", Required: []string{"success", "data"}, Properties: map[string]*Schema{"success": {Type: "boolean", Const: true}, "data": data},
		}
	}
	paths := map[string]object{}
	for i, c := range o.Calls {
		operation, err := b.operation(c, answers[i])
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", c.Method, c.Path, err)
		}
		if paths[c.Path] == nil {
			paths[c.Path] = object{}
		}
		paths[c.Path][strings.ToLower(c.Method)] = operation
	}
	if unused := b.schemas.unused(); len(unused) > 0 {
		return nil, errors.New("rules about what isn't there: " + strings.Join(unused, ", "))
	}
	b.schemas.known["Error"] = errorSchema()
	return json.Marshal(object{
		"openapi": "3.1.0",
		"info":    object{"title": o.Title, "description": o.Description, "version": o.Version},
		"servers": []object{{"url": "/", "description": "the platform that serves this document"}},
		"tags": []object{
			{"name": "anyone", "description": "Calls that need no caller. Each address may make so many of them."},
			{"name": "node", "description": "Calls of nodes, by their certificates."},
			{"name": "operator", "description": "Calls of operators, by their tokens."},
		},
		"paths": paths,
		"components": object{
			"schemas": b.schemas.known,
			"headers": b.headers,
			"securitySchemes": object{
				"node":     object{"type": "mutualTLS", "description": "The certificate that the node got when it enrolled."},
				"operator": object{"type": "http", "scheme": "bearer", "description": "An operator's token, whose role is enough."},
			},
		},
	})
}

type builder struct {
	Options
	schemas schemas
	// headers are the components of answers' headers.
	headers object
}

// errorSchema is the envelope of what isn't a success.
func errorSchema() *Schema {
	text := func(description string) *Schema { return &Schema{Type: "string", Description: description} }
	return &Schema{
		Type: "object", Description: "The answer where something was refused or failed.", Required: []string{"success", "error", "code"},
		Properties: map[string]*Schema{
			"success": {Type: "boolean", Const: false},
			"error":   text("What went wrong, in a sentence."),
			"code":    text("Why, in a word for programs."),
			"details": {Type: "object", Properties: map[string]*Schema{
				"hint":       text("What can be done next, as an imperative clause."),
				"request_id": text("The request's ID, as in the platform's log."),
			}},
		},
	}
}

var placeholder = regexp.MustCompile(`\{(\w+)\}`)

func (b *builder) operation(c Call, answer *Schema) (object, error) {
	parameters := []object{}
	for _, m := range placeholder.FindAllStringSubmatch(c.Path, -1) {
		text, known := b.Parameters[m[1]]
		if !known {
			return nil, fmt.Errorf("nothing is said of {%s}", m[1])
		}
		parameters = append(parameters, object{"name": m[1], "in": "path", "required": true, "description": text, "schema": &Schema{Type: "string", MinLength: new(int64(1))}})
	}
	for _, q := range c.Query {
		schema, err := b.schemas.of(reflect.TypeOf(q.Type), true, q.Rule)
		if err != nil {
			return nil, err
		}
		parameters = append(parameters, object{"name": q.Name, "in": "query", "required": q.Needed, "description": q.Description, "schema": schema})
	}
	out := object{
		"operationId": c.ID, "summary": c.Summary, "tags": []string{tag(c.Caller)}, "responses": b.responses(c, answer), "security": security(c.Caller),
	}
	if text := strings.TrimSpace(c.Description + " " + c.Needs); text != "" {
		out["description"] = text
	}
	if len(parameters) > 0 {
		out["parameters"] = parameters
	}
	if len(c.Requests) == 0 {
		return out, nil
	}
	body := &Schema{}
	for _, r := range c.Requests {
		schema, err := b.schemas.of(reflect.TypeOf(r), true, Rule{})
		if err != nil {
			return nil, err
		}
		body.AnyOf = append(body.AnyOf, schema)
	}
	if len(body.AnyOf) == 1 {
		body = body.AnyOf[0]
	}
	out["requestBody"] = object{
		"required": true, "description": fmt.Sprintf("At most %d bytes.", c.MaxBody), "content": object{"application/json": object{"schema": body}}, "x-max-bytes": c.MaxBody,
	}
	return out, nil
}

func tag(c Caller) string {
	return [...]string{Anyone: "anyone", ANode: "node", AnOperator: "operator"}[c]
}

func security(c Caller) []object {
	if c == Anyone {
		return []object{}
	}
	return []object{{tag(c): []string{}}}
}

// responses puts the errors of one status together.
func (b *builder) responses(c Call, answer *Schema) object {
	headers := func(list ...Header) object {
		out := object{}
		for _, h := range append(slices.Clone(b.Headers), list...) {
			b.headers[h.Name] = object{"description": h.Description, "schema": &Schema{Type: "string"}}
			out[h.Name] = object{"$ref": "#/components/headers/" + h.Name}
		}
		return out
	}
	content := func(s *Schema) object { return object{"application/json": object{"schema": s}} }
	out := object{"200": object{"description": "Done.", "headers": headers(c.Headers...), "content": content(answer)}}
	byStatus := map[int][]Error{}
	for _, e := range c.Errors {
		byStatus[e.Status] = append(byStatus[e.Status], e)
	}
	for status, list := range byStatus {
		var codes, lines []string
		for _, e := range list {
			if !slices.Contains(codes, string(e.Code)) {
				codes = append(codes, string(e.Code))
			}
			if line := fmt.Sprintf("`%s`: %s", e.Code, e.When); !slices.Contains(lines, line) {
				lines = append(lines, line)
			}
		}
		slices.Sort(codes)
		response := object{
			"description": strings.Join(lines, "; "), "headers": headers(),
			"content": content(&Schema{Ref: "#/components/schemas/Error", Properties: map[string]*Schema{"code": {Enum: codes}}}),
		}
		if status == http.StatusTooManyRequests {
			response["headers"] = headers(Header{"Retry-After", "After how many seconds to ask again."})
		}
		name := strconv.Itoa(status)
		if status == http.StatusInternalServerError {
			name = "5XX"
		}
		out[name] = response
	}
	if c.Plain {
		out["304"] = object{"description": "The caller has it already."}
	}
	return out
}
