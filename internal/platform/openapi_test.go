package platform_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/api"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// described is the platform's OpenAPI document, and what of it has been seen.
type described struct {
	t   *testing.T
	doc map[string]any
	// answers takes no fields that the document doesn't have, bodies is the document as it is.
	answers, bodies *jsonschema.Compiler
	operations      map[string]*operation
	clients         map[*platformtest.Node]*http.Client
	p               *platformtest.Platform
	operator        string
	// args are what the paths' placeholders stand for.
	args map[string]string
}

// operation is one call of the document.
type operation struct {
	id, method, path, caller string
	maxBody                  int
	request                  map[string]any // its schema, or nil
	// answers are schemas by status, codes what may be in them, seen what was answered: "200", "404 NOT_FOUND".
	answers map[string]*jsonschema.Schema
	codes   map[string][]string
	seen    map[string]bool
	body    *jsonschema.Schema
}

// at goes down a document.
func at(doc any, path ...string) any {
	for _, name := range path {
		m, _ := doc.(map[string]any)
		doc = m[name]
	}
	return doc
}

func copied(t *testing.T, doc any) any {
	t.Helper()
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	out, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// closed has every object with properties refuse others.
func closed(doc any) {
	switch d := doc.(type) {
	case map[string]any:
		if _, has := d["properties"]; has && d["type"] == "object" {
			d["additionalProperties"] = false
		}
		for _, v := range d {
			closed(v)
		}
	case []any:
		for _, v := range d {
			closed(v)
		}
	}
}

// describe reads the document of a platform.
func describe(t *testing.T, p *platformtest.Platform) *described {
	t.Helper()
	a := p.Do(nil, http.MethodGet, api.PathOpenAPI, nil)
	d := &described{t: t, operations: map[string]*operation{}}
	if err := json.Unmarshal(a.Body, &d.doc); err != nil || a.Status != http.StatusOK {
		t.Fatalf("%d, %v", a.Status, err)
	}
	strict := copied(t, d.doc)
	closed(at(strict, "components"))
	closed(at(strict, "paths"))
	for compiler, doc := range map[**jsonschema.Compiler]any{&d.answers: strict, &d.bodies: copied(t, d.doc)} {
		*compiler = jsonschema.NewCompiler()
		(*compiler).AssertFormat()
		if err := (*compiler).AddResource("mem:///openapi.json", doc); err != nil {
			t.Fatal(err)
		}
	}
	for path, methods := range at(d.doc, "paths").(map[string]any) {
		for method, described := range methods.(map[string]any) {
			op := d.operation(strings.ToUpper(method), path, described)
			d.operations[op.id] = op
		}
	}
	d.on(p)
	return d
}

// compiled returns the schema at a place of the document.
func (d *described) compiled(c *jsonschema.Compiler, place ...string) *jsonschema.Schema {
	d.t.Helper()
	for i, name := range place {
		place[i] = strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(name)
	}
	s, err := c.Compile("mem:///openapi.json#/" + strings.Join(place, "/"))
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

func (d *described) operation(method, path string, described any) *operation {
	d.t.Helper()
	op := &operation{method: method, path: path, answers: map[string]*jsonschema.Schema{}, codes: map[string][]string{}, seen: map[string]bool{}}
	op.id, _ = at(described, "operationId").(string)
	op.caller, _ = at(described, "tags").([]any)[0].(string)
	for status, answer := range at(described, "responses").(map[string]any) {
		if at(answer, "content") == nil {
			continue
		}
		op.answers[status] = d.compiled(d.answers, "paths", path, strings.ToLower(method), "responses", status, "content", "application/json", "schema")
		codes, _ := at(answer, "content", "application/json", "schema", "properties", "code", "enum").([]any)
		for _, code := range codes {
			op.codes[status] = append(op.codes[status], code.(string))
		}
	}
	if size, ok := at(described, "requestBody", "x-max-bytes").(float64); ok {
		op.maxBody = int(size)
		op.request = at(described, "requestBody", "content", "application/json", "schema").(map[string]any)
		op.body = d.compiled(d.bodies, "paths", path, strings.ToLower(method), "requestBody", "content", "application/json", "schema")
	}
	return op
}

// on goes on with another platform.
func (d *described) on(p *platformtest.Platform) {
	d.p, d.operator, d.clients, d.args = p, p.Config.Token.Reveal(), map[*platformtest.Node]*http.Client{}, map[string]string{}
}

// asked is one request.
type asked struct {
	node *platformtest.Node
	// body is sent as JSON, but a string as it is.
	body any
	// query follows the path, with its question mark.
	query string
	// args are for placeholders that are other than usual, headers those beside the operator's token; an Authorization of "" is none.
	args, headers map[string]string
	// wrong says that the body isn't what the document wants.
	wrong bool
}

// client returns one that keeps connections, unlike the platform's.
func (d *described) client(node *platformtest.Node) *http.Client {
	if d.clients[node] == nil {
		c := d.p.Client(node)
		if transport, ok := c.Transport.(*http.Transport); ok {
			transport.DisableKeepAlives = false
			d.t.Cleanup(transport.CloseIdleConnections)
		}
		d.clients[node] = c
	}
	return d.clients[node]
}

// call makes a call, holds question and answer against the document, and returns the data of a success and "200", or nil and status and
// code.
func (d *described) call(id string, a asked) (data json.RawMessage, got string) {
	d.t.Helper()
	op := d.operations[id]
	if op == nil {
		d.t.Fatalf("no operation %s", id)
	}
	path := op.path
	for _, args := range []map[string]string{a.args, d.args} {
		for name, value := range args {
			path = strings.ReplaceAll(path, "{"+name+"}", value)
		}
	}
	if strings.Contains(path, "{") {
		d.t.Fatalf("%s: what is %s?", id, path)
	}
	var reader io.Reader
	if a.body != nil {
		text, raw := a.body.(string)
		if !raw {
			encoded, err := json.Marshal(a.body)
			if err != nil {
				d.t.Fatal(err)
			}
			text = string(encoded)
			if err := op.body.Validate(copied(d.t, a.body)); (err != nil) != a.wrong {
				d.t.Errorf("%s: the document says of the body %.500s: %v", id, text, err)
			}
		}
		reader = strings.NewReader(text)
	}
	req, err := http.NewRequestWithContext(d.t.Context(), op.method, d.p.URL+path+a.query, reader)
	if err != nil {
		d.t.Fatal(err)
	}
	if op.caller == "operator" {
		req.Header.Set("Authorization", "Bearer "+d.operator)
	}
	for name, value := range a.headers {
		if req.Header.Set(name, value); value == "" {
			req.Header.Del(name)
		}
	}
	resp, err := d.client(a.node).Do(req)
	if err != nil {
		d.t.Fatalf("%s: %v", id, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return d.judge(op, resp, body)
}

// judge holds an answer against the document.
func (d *described) judge(op *operation, resp *http.Response, body []byte) (data json.RawMessage, got string) {
	d.t.Helper()
	status := strconv.Itoa(resp.StatusCode)
	if resp.StatusCode >= http.StatusInternalServerError {
		status = "5XX"
	}
	schema := op.answers[status]
	if schema == nil {
		d.t.Errorf("%s: the document has no %s: %.500s", op.id, status, body)
		return nil, status
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		d.t.Fatalf("%s: %v: %.200s", op.id, err, body)
	}
	if err := schema.Validate(doc); err != nil {
		d.t.Errorf("%s: the answer isn't what the document says: %v\n%.1000s", op.id, err, body)
	}
	if resp.Header.Get("X-Request-Id") == "" || resp.Header.Get("Content-Type") != "application/json" ||
		resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") == "" ||
		resp.StatusCode == http.StatusOK && op.caller == "operator" && resp.Header.Get(operatorapi.HeaderCABundle) == "" {
		d.t.Errorf("%s: %s with the header %v", op.id, status, resp.Header)
	}
	var env nodeapi.Envelope
	_ = json.Unmarshal(body, &env)
	if got = status; env.Code != "" {
		got += " " + string(env.Code)
	}
	op.seen[got] = true
	return env.Data, got
}

// done makes a call that must be a success, and decodes what came of it.
func done[T any](d *described, id string, a asked) T {
	d.t.Helper()
	var out T
	data, got := d.call(id, a)
	if got != "200" {
		d.t.Fatalf("%s: %s", id, got)
	}
	if err := json.Unmarshal(data, &out); err != nil {
		d.t.Fatalf("%s: %v", id, err)
	}
	return out
}

// refused makes a call that must be refused so.
func (d *described) refused(id, want string, a asked) {
	d.t.Helper()
	if _, got := d.call(id, a); got != want {
		d.t.Errorf("%s: %s, want %s", id, got, want)
	}
}

// each calls f for every operation, by name.
func (d *described) each(f func(op *operation)) {
	for _, id := range slices.Sorted(maps.Keys(d.operations)) {
		f(d.operations[id])
	}
}

// TestOpenAPIRoutes: the document has the platform's routes, each once, and no others.
func TestOpenAPIRoutes(t *testing.T) {
	p := platformtest.Start(t)
	d := describe(t, p)
	have := map[string]bool{}
	d.each(func(op *operation) { have[op.method+" "+op.path] = true })
	routes := []string{"GET " + api.PathOpenAPI}
	for _, r := range api.NodeRoutes() {
		routes = append(routes, r.Method+" "+r.Path)
	}
	for _, r := range api.OperatorRoutes() {
		routes = append(routes, r.Method+" "+r.Path)
	}
	for _, r := range routes {
		if !have[r] {
			t.Errorf("the document has no %s", r)
		}
		delete(have, r)
	}
	for r := range have {
		t.Errorf("there is no route %s", r)
	}
	first := p.Do(nil, http.MethodGet, api.PathOpenAPI, nil)
	tag := first.Header.Get("ETag")
	if tag == "" || !strings.Contains(first.Header.Get("Cache-Control"), "max-age") || first.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%v", first.Header)
	}
	again := p.Do(nil, http.MethodGet, api.PathOpenAPI, nil, "If-None-Match", tag)
	if again.Status != http.StatusNotModified || len(again.Body) != 0 || again.Header.Get("ETag") != tag {
		t.Errorf("%d, %d bytes, %v", again.Status, len(again.Body), again.Header)
	}
	if other := p.Do(nil, http.MethodPost, api.PathOpenAPI, nil); other.Status != http.StatusMethodNotAllowed || other.Header.Get("Allow") != "GET" {
		t.Errorf("%d %v", other.Status, other.Header)
	}
}

// TestOpenAPI makes every call of the document, and has it answer everything that the document says it answers.
func TestOpenAPI(t *testing.T) {
	d := describe(t, platformtest.Start(t))
	d.calls()
	d.mistakes()
	d.callers()
	d.elsewhere()
	d.crowds()
	d.trouble()
	produced := 0
	d.each(func(op *operation) {
		for status, codes := range op.codes {
			for _, code := range codes {
				if produced++; !op.seen[status+" "+code] {
					t.Errorf("%s: no test has seen %s %s", op.id, status, code)
				}
			}
		}
		if !op.seen["200"] {
			t.Errorf("%s: no test has seen it succeed", op.id)
		}
	})
	t.Log(fmt.Sprint(len(d.operations), " operations, ", produced, " errors"))
}
