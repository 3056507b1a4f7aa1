package openapi

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
)

func options() Options {
	return Options{
		Title: "T", Version: "1", Parameters: map[string]string{"node": "A node."}, Strict: []string{"operatorapi"},
		Headers: []Header{{"X-Request-Id", "The request's ID."}},
		Rules:   Rules{"operatorapi.UserKeys.authorized_keys": {Bounds: &Bounds{Most: 2}, Each: &Rule{Bounds: &Bounds{Least: 1, Most: 9}}, Null: true}},
		Needed:  Needed{"operatorapi.UserKeys": {"name"}},
		Calls: []Call{
			{
				Method: http.MethodPost, Path: "/nodes/{node}", ID: "change", Caller: AnOperator, Requests: []any{operatorapi.UserKeys{}}, MaxBody: 10, Answer: operatorapi.UserKeys{},
				Errors: []Error{{http.StatusNotFound, nodeapi.CodeNotFound, "gone"}, {http.StatusTooManyRequests, nodeapi.CodeTooManyRequests, "often"}, {http.StatusInternalServerError, nodeapi.CodeInternal, "trouble"}},
			},
			{Method: http.MethodGet, Path: "/doc", ID: "doc", Plain: true},
		},
	}
}

func at(t *testing.T, text []byte, path ...string) string {
	t.Helper()
	var doc any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	for _, name := range path {
		m, _ := doc.(map[string]any)
		doc = m[name]
	}
	out, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestBuild: what is optional in an answer, needed in a request, bounded and refused.
func TestBuild(t *testing.T) {
	text, err := Build(options())
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		path []string
		want string
	}{
		{[]string{"openapi"}, `"3.1.0"`},
		{[]string{"components", "schemas", "operatorapi.UserKeys", "required"}, `["name","authorized_keys"]`},
		{[]string{"components", "schemas", "operatorapi.UserKeysInput", "required"}, `["name"]`},
		{[]string{"components", "schemas", "operatorapi.UserKeysInput", "additionalProperties"}, `false`},
		{[]string{"components", "schemas", "operatorapi.UserKeys", "additionalProperties"}, `null`},
		{[]string{"components", "schemas", "operatorapi.UserKeys", "properties", "no_keys", "type"}, `"boolean"`},
		{[]string{"components", "schemas", "operatorapi.UserKeys", "properties", "authorized_keys", "type"}, `["array","null"]`},
		{[]string{"components", "schemas", "operatorapi.UserKeys", "properties", "authorized_keys", "items"}, `{"maxLength":9,"minLength":1,"type":"string"}`},
		{[]string{"components", "schemas", "operatorapi.UserKeys", "properties", "authorized_keys", "maxItems"}, `2`},
		{[]string{"paths", "/nodes/{node}", "post", "requestBody", "content", "application/json", "schema"}, `{"$ref":"#/components/schemas/operatorapi.UserKeysInput"}`},
		{[]string{"paths", "/nodes/{node}", "post", "responses", "404", "content", "application/json", "schema", "properties", "code", "enum"}, `["NOT_FOUND"]`},
		{[]string{"paths", "/nodes/{node}", "post", "responses", "404", "description"}, "\"`NOT_FOUND`: gone\""},
		{[]string{"paths", "/nodes/{node}", "post", "responses", "429", "headers", "Retry-After"}, `{"$ref":"#/components/headers/Retry-After"}`},
		{[]string{"components", "headers", "Retry-After", "schema", "type"}, `"string"`},
		{[]string{"paths", "/nodes/{node}", "post", "responses", "5XX", "content", "application/json", "schema", "properties", "code", "enum"}, `["INTERNAL_ERROR"]`},
		{[]string{"paths", "/nodes/{node}", "post", "security"}, `[{"operator":[]}]`},
		{[]string{"paths", "/doc", "get", "responses", "200", "content", "application/json", "schema"}, `{"type":"object"}`},
		{[]string{"paths", "/doc", "get", "security"}, `[]`},
	} {
		if diff := cmp.Diff(tc.want, at(t, text, tc.path...)); diff != "" {
			t.Errorf("%v: %s", tc.path, diff)
		}
	}
}

// TestBuildRefuses what is said about nothing, or can't be said.
func TestBuildRefuses(t *testing.T) {
	for want, change := range map[string]func(*Options){
		"operatorapi.UserKeys.gone": func(o *Options) { o.Rules["operatorapi.UserKeys.gone"] = Rule{} },
		"operatorapi.Gone":          func(o *Options) { o.Needed["operatorapi.Gone"] = nil },
		"operatorapi.UserKeys.nam":  func(o *Options) { o.Needed["operatorapi.UserKeys"] = []string{"nam"} },
		"nothing is said of {node}": func(o *Options) { o.Parameters = nil },
		"no schema for float64": func(o *Options) {
			o.Calls[0].Answer = struct {
				X float64 `json:"x"`
			}{}
		},
		"has no name in JSON":                func(o *Options) { o.Calls[0].Answer = struct{ X int }{} },
		"no values of the type nodeapi.Gone": func(o *Options) { o.Rules["operatorapi.UserKeys.name"] = Rule{As: "nodeapi.Gone"} },
	} {
		o := options()
		change(&o)
		if _, err := Build(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
