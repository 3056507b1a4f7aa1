package platform_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// exchange is one call of the existing agent (its Go program as of May 2026), recorded while it spoke with
// this platform, and what it was answered. Tokens are left out of the record.
type exchange struct {
	Name   string            `json:"name"`
	Method string            `json:"method"`
	Path   string            `json:"path"`
	Header map[string]string `json:"header"`
	Body   map[string]any    `json:"body"`
	Status int               `json:"status"`
	Answer map[string]any    `json:"answer"`
}

func recorded(t *testing.T) []exchange {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "existing-agent.json"))
	if err != nil {
		t.Fatal(err)
	}
	var list []exchange
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// sameShape reports what of the recorded answer is missing now, or is of another kind.
func sameShape(path string, was, is any) []string {
	if fmt.Sprintf("%T", was) != fmt.Sprintf("%T", is) {
		return []string{fmt.Sprintf("%s was %T and is %T", path, was, is)}
	}
	object, ok := was.(map[string]any)
	if !ok {
		return nil
	}
	now, _ := is.(map[string]any)
	var list []string
	for key, value := range object {
		other, ok := now[key]
		if !ok {
			list = append(list, path+"."+key+" is missing")
			continue
		}
		list = append(list, sameShape(path+"."+key, value, other)...)
	}
	return list
}

// TestExistingAgent replays what the existing agent sent, byte for byte but for the tokens: it is claimed,
// enrolls, reports and rotates here, and gets answers of the shapes that it went on with.
func TestExistingAgent(t *testing.T) {
	p := platformtest.Start(t)
	ctx := t.Context()
	if _, err := p.Operator.CreateNode(ctx, operatorapi.NodeCreate{Name: "web-1"}); err != nil {
		t.Fatal(err)
	}
	// The record has no private keys: what goes over a certificate goes over that of another node.
	caller := p.Enroll("web-2", "amd64")
	var token string
	for _, e := range recorded(t) {
		if _, ok := e.Body["bootstrap_token"]; ok {
			e.Body["bootstrap_token"] = token
		}
		var headers []string
		for name, value := range e.Header {
			headers = append(headers, name, value)
		}
		var node *platformtest.Node
		if e.Path == nodeapi.PathHeartbeat || e.Path == nodeapi.PathRefresh {
			node = caller
		}
		if e.Status == http.StatusUnauthorized {
			// By now the record's agent used its new certificate, by which the one before ended.
			key := p.Key()
			var out nodeapi.EnrollResponse
			p.Refresh(caller, key).Into(&out)
			if code := works(p, p.With(caller, out.CertPEM, key)); code != "" {
				t.Fatal(code)
			}
		}
		a := p.Do(node, e.Method, e.Path, e.Body, headers...)
		var answer map[string]any
		if err := json.Unmarshal(a.Body, &answer); err != nil || a.Status != e.Status {
			t.Errorf("%s: %d %s, want %d (%v)", e.Name, a.Status, a.Body, e.Status, err)
			continue
		}
		if lacks := sameShape("answer", e.Answer, answer); len(lacks) > 0 {
			t.Errorf("%s: %s", e.Name, strings.Join(lacks, "; "))
		}
		data, _ := answer["data"].(map[string]any)
		if text, ok := data["not_after"].(string); ok {
			// As the agent reads it: by RFC 3339.
			if _, err := time.Parse(time.RFC3339, text); err != nil {
				t.Error(err)
			}
		}
		if _, ok := data["instance_token"]; ok {
			t.Errorf("%s: an instance token, which nothing here would take", e.Name)
		}
		if code, ok := data["claim_code"].(string); ok {
			if _, err := p.Operator.AcceptClaim(ctx, code, operatorapi.ClaimAccept{Node: "web-1"}); err != nil {
				t.Fatal(err)
			}
		}
		if given, ok := data["bootstrap_token"].(string); ok {
			token = given
		}
	}
	shown, err := p.Operator.Node(ctx, "web-1")
	if err != nil || len(shown.Certificates) != 1 {
		t.Errorf("%+v, %v", shown.Certificates, err)
	}
}
