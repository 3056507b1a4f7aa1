package platform_test

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
	"github.com/powernode/powernode-agent/internal/platform"
	"github.com/powernode/powernode-agent/internal/platform/api"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

var placeholder = regexp.MustCompile(`\{\w+\}`)

// operatorToken makes a token of a role, and returns its Authorization header.
func operatorToken(t *testing.T, p *platformtest.Platform, name string, role operatorapi.Role) []string {
	t.Helper()
	made, err := p.Operator.CreateOperator(t.Context(), operatorapi.OperatorCreate{Name: name, Role: role})
	if err != nil {
		t.Fatal(err)
	}
	return []string{"Authorization", "Bearer " + made.Token}
}

// TestRoles makes every call of the operator API by a token of every role, and by none.
func TestRoles(t *testing.T) {
	p := platformtest.Start(t)
	headers := map[operatorapi.Role][]string{}
	for _, role := range operatorapi.Roles() {
		headers[role] = operatorToken(t, p, string(role)+"-token", role)
	}
	routes := api.OperatorRoutes()
	if len(routes) < 30 {
		t.Fatalf("only %d routes", len(routes))
	}
	for _, route := range routes {
		if (route.Method == http.MethodGet) != (route.Action == "") {
			t.Errorf("%s %s: what changes something is in the audit log, and nothing else: %q", route.Method, route.Path, route.Action)
		}
		var body any
		if route.Method == http.MethodPost {
			body = strings.NewReader("{}")
		}
		path := placeholder.ReplaceAllString(route.Path, "nothing")
		if a := p.Do(nil, route.Method, path, body); a.Status != http.StatusUnauthorized {
			t.Errorf("%s %s without a token: %d", route.Method, path, a.Status)
		}
		for _, role := range operatorapi.Roles() {
			if route.Method == http.MethodPost {
				body = strings.NewReader("{}")
			}
			a := p.Do(nil, route.Method, path, body, headers[role]...)
			switch {
			case a.Status == http.StatusUnauthorized || a.Status >= http.StatusInternalServerError:
				t.Errorf("%s %s as %s: %d %s", route.Method, path, role, a.Status, a.Body)
			case role.May(route.Role) != (a.Status != http.StatusForbidden):
				t.Errorf("%s %s as %s: %d %s", route.Method, path, role, a.Status, a.Body)
			case a.Status == http.StatusForbidden && (a.Envelope.Code != nodeapi.CodeForbidden || !strings.Contains(string(a.Body), "needs "+string(route.Role))):
				t.Errorf("%s %s as %s: %s", route.Method, path, role, a.Body)
			}
		}
	}
}

// TestOperatorTokens: they are made, listed and revoked, and none of them is in the database.
func TestOperatorTokens(t *testing.T) {
	p := platformtest.Start(t)
	ctx := t.Context()
	made, err := p.Operator.CreateOperator(ctx, operatorapi.OperatorCreate{Name: "ci", Role: operatorapi.RoleDeploy})
	if err != nil || len(made.Token) != 43 || made.URL != p.URL || made.CAPEM == "" {
		t.Fatalf("%+v, %v", made, err)
	}
	for name, in := range map[string]operatorapi.OperatorCreate{
		"a name that is taken": {Name: "ci", Role: operatorapi.RoleRead}, "the first's name": {Name: operatorapi.FirstOperator, Role: operatorapi.RoleRead},
		"a bad name": {Name: "Alice B", Role: operatorapi.RoleRead}, "no name": {Role: operatorapi.RoleRead}, "no role": {Name: "x"}, "another role": {Name: "x", Role: "root"},
	} {
		if _, err := p.Operator.CreateOperator(ctx, in); err == nil {
			t.Errorf("%s: made", name)
		}
	}
	list, err := p.Operator.Operators(ctx)
	if err != nil || list.Count != 2 || list.Operators[0].Name != operatorapi.FirstOperator || list.Operators[0].Role != operatorapi.RoleAdmin ||
		list.Operators[1].Name != "ci" || list.Operators[1].CreatedBy != operatorapi.FirstOperator {
		t.Errorf("%+v, %v", list, err)
	}
	headers := []string{"Authorization", "Bearer " + made.Token}
	if a := p.Do(nil, http.MethodGet, operatorapi.PathInfo, nil, headers...); a.Status != http.StatusOK {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	p = p.Restart()
	if a := p.Do(nil, http.MethodGet, operatorapi.PathInfo, nil, headers...); a.Status != http.StatusOK {
		t.Errorf("after a restart: %d %s", a.Status, a.Body)
	}
	if _, err := p.Operator.RevokeOperator(ctx, operatorapi.FirstOperator); err == nil || !strings.Contains(err.Error(), "can't be revoked") {
		t.Errorf("the first: %v", err)
	}
	if list, err = p.Operator.RevokeOperator(ctx, "ci"); err != nil || list.Count != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := p.Operator.RevokeOperator(ctx, "ci"); err == nil {
		t.Error("revoked twice")
	}
	if a := p.Do(nil, http.MethodGet, operatorapi.PathInfo, nil, headers...); a.Status != http.StatusUnauthorized {
		t.Errorf("after it was revoked: %d", a.Status)
	}
	if a := p.Do(nil, http.MethodGet, "/v2/", nil, headers...); a.Status != http.StatusUnauthorized {
		t.Errorf("registry, after it was revoked: %d", a.Status)
	}
}

// TestRegistryRoles: reading pulls, deploying pushes, and a push is in the audit log by its name.
func TestRegistryRoles(t *testing.T) {
	p := platformtest.Start(t)
	m := p.Publish(platformtest.Module{Name: "base", Version: "1", Files: map[string]string{"usr/x": "x"}})
	for role, status := range map[operatorapi.Role]int{operatorapi.RoleRead: http.StatusForbidden, operatorapi.RoleDeploy: http.StatusAccepted, operatorapi.RoleAdmin: http.StatusAccepted} {
		header := operatorToken(t, p, string(role), role)
		if a := p.Do(nil, http.MethodGet, "/v2/modules/base/manifests/"+m.Digest, nil, header...); a.Status != http.StatusOK {
			t.Errorf("%s: pull: %d %s", role, a.Status, a.Body)
		}
		if a := p.Do(nil, http.MethodPost, "/v2/modules/base/blobs/uploads/", nil, header...); a.Status != status {
			t.Errorf("%s: push: %d %s", role, a.Status, a.Body)
		}
	}
	entries := audit(t, p, operatorclient.AuditQuery{})
	pushes, registers := 0, 0
	for _, e := range entries {
		if e.Action == "registry.push" && strings.HasPrefix(e.Target, "modules/base ") && e.Result == "ok" && e.By == operatorapi.FirstOperator {
			pushes++
		}
		if e.Action == "module.register" && strings.Contains(e.Target, "modules/base") {
			registers++
		}
	}
	if pushes == 0 || registers != 1 {
		t.Errorf("%d pushes, %d registrations in %+v", pushes, registers, entries)
	}
}

func audit(t *testing.T, p *platformtest.Platform, q operatorclient.AuditQuery) []operatorapi.AuditEntry {
	t.Helper()
	list, err := p.Operator.Audit(t.Context(), q)
	if err != nil || list.Count != len(list.Entries) {
		t.Fatalf("%+v, %v", list, err)
	}
	return list.Entries
}

// TestAudit: each change is in the audit log once, with who, from where, what, on what and the result; so is what was refused.
func TestAudit(t *testing.T) {
	p := platformtest.Start(t)
	ctx := t.Context()
	header := operatorToken(t, p, "ci", operatorapi.RoleDeploy)
	if _, err := p.Operator.CreateNode(ctx, operatorapi.NodeCreate{Name: "web", Architecture: "amd64"}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Operator.CreateNode(ctx, operatorapi.NodeCreate{Name: "web"}); err == nil {
		t.Fatal("made twice")
	}
	node := url.PathEscape("web")
	p.Do(nil, http.MethodPost, operatorapi.PathNodes+"/"+node+"/tasks", operatorapi.TaskCreate{Kind: "sync"}, header...).Into(&operatorapi.Task{})
	p.Do(nil, http.MethodPost, operatorapi.PathNodes+"/"+node+"/revoke", strings.NewReader("{}"), header...)
	// What is as it is to be already isn't changed, and isn't in it.
	task := operatorapi.TaskCreate{ID: "9c3e1a52-4f0b-4d5e-8d52-0c5b1f2f7a10", Kind: "gc"}
	for range 3 {
		p.Do(nil, http.MethodPost, operatorapi.PathNodes+"/"+node+"/tasks", task, header...).Into(&operatorapi.Task{})
	}
	// What only looks is in no log.
	if _, err := p.Operator.Nodes(ctx); err != nil {
		t.Fatal(err)
	}
	type entry struct{ by, role, action, target, result string }
	var got []entry
	for _, e := range audit(t, p, operatorclient.AuditQuery{}) {
		got = append(got, entry{e.By, string(e.Role), e.Action, e.Target, e.Result})
		if e.From != "127.0.0.1" || len(e.RequestID) != 32 || (e.Result == "ok") != (e.Error == "") {
			t.Errorf("%+v", e)
		}
	}
	want := []entry{
		{"ci", "deploy", "task.create", "web", "ok"},
		{"ci", "deploy", "node.revoke", "web", "FORBIDDEN"},
		{"ci", "deploy", "task.create", "web", "ok"},
		{"operator", "admin", "node.create", "web", "CONFLICT"},
		{"operator", "admin", "node.create", "web", "ok"},
		{"operator", "admin", "operator.create", "ci", "ok"},
	}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("entry %d is %+v, not %+v", i, got[i], want[i])
		}
	}
	by := audit(t, p, operatorclient.AuditQuery{By: "ci", Limit: 1})
	if len(by) != 1 || by[0].Action != "task.create" || !strings.Contains(by[0].Request, `"gc"`) {
		t.Errorf("%+v", by)
	}
	before := audit(t, p, operatorclient.AuditQuery{By: "ci", Before: by[0].ID})
	if len(before) != 2 || before[1].Action != "task.create" || !strings.Contains(before[1].Request, `"sync"`) {
		t.Errorf("%+v", before)
	}

	// Who may only read can't push out what is known of the others.
	reader := operatorToken(t, p, "reader", operatorapi.RoleRead)
	for range 100 {
		p.Do(nil, http.MethodPost, operatorapi.PathNodes, strings.NewReader("{}"), reader...)
	}
	if n := len(audit(t, p, operatorclient.AuditQuery{By: "reader", Limit: 1000})); n == 0 || n > 60 {
		t.Errorf("%d entries", n)
	}
	for _, query := range []string{"?before=x", "?before=-1", "?limit=0", "?limit=5000"} {
		if a := p.Do(nil, http.MethodGet, operatorapi.PathAudit+query, nil, "Authorization", "Bearer "+p.Config.Token.Reveal()); a.Status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d", query, a.Status)
		}
	}
}

// TestResetOperatorKeepsOthers: the first token is replaced, and the others go on.
func TestResetOperatorKeepsOthers(t *testing.T) {
	p := platformtest.StartWith(t, platform.Options{ResetOperator: true})
	header := operatorToken(t, p, "ci", operatorapi.RoleRead)
	old := []string{"Authorization", "Bearer " + p.Config.Token.Reveal()}
	p = p.Restart()
	if a := p.Do(nil, http.MethodGet, operatorapi.PathInfo, nil, header...); a.Status != http.StatusOK {
		t.Errorf("another's: %d", a.Status)
	}
	if a := p.Do(nil, http.MethodGet, operatorapi.PathInfo, nil, old...); a.Status != http.StatusUnauthorized {
		t.Errorf("the first: %d", a.Status)
	}
	if got := audit(t, p, operatorclient.AuditQuery{Limit: 1})[0]; got.Action != "operator.reset" || got.By != "(powernode-platform)" {
		t.Errorf("%+v", got)
	}
}
