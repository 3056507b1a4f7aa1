package platform_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// wrong makes a call with each mistake in its body that the document knows: whatever that says can't be, the platform refuses, and with an
// error that the document has.
func (d *described) wrong(id string, a asked) {
	d.t.Helper()
	op := d.operations[id]
	schema := op.request
	if choices, ok := schema["anyOf"].([]any); ok {
		for _, one := range choices {
			if d.valid(one, a.body) {
				schema = one.(map[string]any)
			}
		}
	}
	bodies := d.mistaken(schema, copied(d.t, a.body))
	if len(bodies) < 2 {
		d.t.Errorf("%s: %d mistakes", id, len(bodies))
	}
	for _, body := range bodies {
		a.body, a.wrong = body, true
		if _, got := d.call(id, a); !strings.HasPrefix(got, "4") {
			text, _ := json.Marshal(body)
			d.t.Errorf("%s: %s for the body %.500s", id, got, text)
		}
	}
}

// valid reports whether a body has all that a schema needs.
func (d *described) valid(schema, body any) bool {
	s := d.resolved(schema)
	m, _ := copied(d.t, body).(map[string]any)
	needed, _ := s["required"].([]any)
	return !slices.ContainsFunc(needed, func(name any) bool { _, has := m[name.(string)]; return !has })
}

func (d *described) resolved(schema any) map[string]any {
	s, _ := schema.(map[string]any)
	if ref, ok := s["$ref"].(string); ok {
		s, _ = at(d.doc, "components", "schemas", strings.TrimPrefix(ref, "#/components/schemas/")).(map[string]any)
	}
	return s
}

// mistaken returns a value with one mistake each.
func (d *described) mistaken(schema, value any) (out []any) {
	d.t.Helper()
	s := d.resolved(schema)
	number := func(name string) (int, bool) { n, ok := s[name].(float64); return int(n), ok }
	switch kind := s["type"]; {
	case kind == "object" && s["properties"] != nil:
		return d.mistakenObject(s, value)
	case kind == "object" || is(kind, "object"):
		out = append(out, "x")
		if most, ok := number("maxProperties"); ok {
			many := map[string]any{}
			for i := range most + 1 {
				many[fmt.Sprintf("k%04d", i)] = some(value)
			}
			out = append(out, many)
		}
		if s["additionalProperties"] == nil {
			return out
		}
		for _, wrong := range d.mistaken(s["additionalProperties"], some(value)) {
			out = append(out, map[string]any{"k": wrong})
		}
	case kind == "array" || is(kind, "array"):
		out = append(out, "x")
		list, _ := value.([]any)
		if least, _ := number("minItems"); least > 0 {
			out = append(out, []any{})
		}
		if len(list) == 0 {
			return out
		}
		if most, ok := number("maxItems"); ok {
			out = append(out, slices.Repeat(list[:1], most+1))
		}
		for _, wrong := range d.mistaken(s["items"], list[0]) {
			out = append(out, []any{wrong})
		}
	case kind == "string":
		out = append(out, 7)
		if s["enum"] != nil || s["pattern"] != nil || s["format"] != nil {
			out = append(out, "no such%")
		}
		if most, ok := number("maxLength"); ok {
			out = append(out, strings.Repeat("a", most+1))
		}
		if least, _ := number("minLength"); least > 0 {
			out = append(out, "")
		}
	case kind == "integer":
		out = append(out, "7", 0.5)
		if least, ok := number("minimum"); ok {
			out = append(out, least-1)
		}
		if most, ok := s["maximum"].(float64); ok && most < 1<<53 {
			out = append(out, int(most)+1)
		}
	default:
		out = append(out, "x")
	}
	return out
}

func is(kind any, word string) bool {
	list, _ := kind.([]any)
	return slices.Contains(list, any(word))
}

// some returns a value of a map, or a text.
func some(m any) any {
	for _, v := range m.(map[string]any) {
		return v
	}
	return "x"
}

func (d *described) mistakenObject(s map[string]any, value any) (out []any) {
	d.t.Helper()
	body, _ := value.(map[string]any)
	with := func(name string, v any) {
		changed := maps.Clone(body)
		if changed[name] = v; v == nil {
			delete(changed, name)
		}
		out = append(out, changed)
	}
	needed, _ := s["required"].([]any)
	for _, name := range needed {
		with(name.(string), nil)
	}
	if s["additionalProperties"] == false {
		with("no_such_field", true)
	}
	properties, _ := s["properties"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		if body[name] == nil && d.resolved(properties[name])["properties"] != nil {
			continue
		}
		for _, wrong := range d.mistaken(properties[name], body[name]) {
			with(name, wrong)
		}
	}
	return append(out, []any{})
}

// mistakes makes the calls that the document says are refused for what they are about.
func (d *described) mistakes() {
	d.t.Helper()
	d.on(platformtest.Start(d.t))
	p := d.p
	d.args = map[string]string{"node": "web-1", "module": "base", "task": "nothing", "operator": "nobody", "code": "ABCDEFGH"}
	node, running := p.Enroll("web-1", "amd64"), p.Enroll("web-2", "amd64")
	p.Publish(platformtest.Module{Name: "base", Version: "1", Files: map[string]string{"etc/motd": "base"}})
	const notFound, conflict, unprocessable, missing = "404 NOT_FOUND", "409 CONFLICT", "422 VALIDATION_ERROR", "400 PARAMETER_MISSING"
	lease := strings.Repeat("0", 32)

	// What isn't there.
	d.each(func(op *operation) {
		if strings.Contains(op.path, "{") && slices.Contains(op.codes["404"], "NOT_FOUND") {
			args := map[string]string{"node": "nothing", "module": "nothing"}
			a := asked{args: args, node: node}
			switch op.id {
			case "renewTask":
				a.body = nodeapi.RenewTask{LeaseID: lease}
			case "progressTask":
				a.body = nodeapi.TaskProgress{LeaseID: lease}
			case "completeTask":
				a.body = nodeapi.CompleteTask{LeaseID: lease}
			case "failTask":
				a.body = nodeapi.FailTask{LeaseID: lease, Code: nodeapi.FailFailed, Error: "x"}
			case "acceptClaim":
				a.body = operatorapi.ClaimAccept{Create: "x"}
			}
			d.refused(op.id, notFound, a)
		}
	})
	for _, id := range []string{"listTasks", "listNodeEvents"} {
		d.refused(id, notFound, asked{query: "?node=nothing"})
		d.refused(id, unprocessable, asked{query: "?limit=1001"})
	}
	d.refused("listNodes", unprocessable, asked{query: "?state=asleep"})
	d.refused("listAudit", unprocessable, asked{query: "?before=0"})
	d.refused("unassignModule", unprocessable, asked{query: "?remove_most=no"})
	d.refused("rejectClaim", unprocessable, asked{args: map[string]string{"code": "0"}})
	d.refused("acceptClaim", unprocessable, asked{args: map[string]string{"code": "0"}, body: operatorapi.ClaimAccept{Create: "x"}})

	// What is there already, or isn't as it must be.
	d.refused("createNode", conflict, asked{body: operatorapi.NodeCreate{Name: "web-1"}})
	d.refused("createOperator", conflict, asked{body: operatorapi.OperatorCreate{Name: "operator", Role: operatorapi.RoleRead}})
	d.refused("revokeOperator", conflict, asked{args: map[string]string{"operator": "operator"}})
	d.refused("approveNode", conflict, asked{body: operatorapi.ApproveRequest{}})
	d.refused("approveNode", unprocessable, asked{body: operatorapi.ApproveRequest{Attention: true, Deny: true}})
	d.p.Enroll("arm", "arm64")
	d.refused("assignModule", unprocessable, asked{args: map[string]string{"node": "arm"}, body: operatorapi.AssignmentCreate{Module: "base"}})
	d.refused("registerModule", conflict, asked{body: p.Push(platformtest.Module{Name: "base", Version: "1", Files: map[string]string{"etc/motd": "other"}})})
	d.refused("registerModule", "422 SEAL_REFUSED", asked{body: p.Push(platformtest.Module{Name: "bad", Version: "1", Annotations: func(a map[string]string) {
		a[module.AnnotationSeal] = strings.Repeat("a", 64)
	}})})
	id := "9c3e1a52-4f0b-4d5e-8d52-0c5b1f2f7a10"
	done[operatorapi.Task](d, "createTask", asked{body: operatorapi.TaskCreate{ID: id, Kind: "sync"}})
	d.refused("createTask", conflict, asked{body: operatorapi.TaskCreate{ID: id, Kind: "gc"}})
	d.refused("createTask", missing, asked{body: operatorapi.TaskCreate{Kind: "attach", Options: json.RawMessage(`{"modules":[""]}`)}})
	d.args["task"] = id
	got := done[nodeapi.LeaseResponse](d, "leaseTasks", asked{node: node, body: nodeapi.LeaseRequest{Max: 1}})
	for call, body := range map[string]any{
		"renewTask": nodeapi.RenewTask{LeaseID: lease}, "progressTask": nodeapi.TaskProgress{LeaseID: lease}, "completeTask": nodeapi.CompleteTask{LeaseID: lease},
		"failTask": nodeapi.FailTask{LeaseID: lease, Code: nodeapi.FailFailed, Error: "x"},
	} {
		d.refused(call, "409 LEASE_LOST", asked{node: node, body: body})
	}
	d.refused("completeTask", "422 REPORT_REFUSED", asked{node: node, body: nodeapi.CompleteTask{LeaseID: got.Tasks[0].LeaseID, Result: json.RawMessage(`{"x":"` + strings.Repeat("x", nodeapi.MaxTaskResult) + `"}`)}})

	// Machines that ask to be claimed.
	claim := done[nodeapi.ClaimResponse](d, "claim", asked{body: machine("a")})
	d.args["code"] = claim.ClaimCode
	done[nodeapi.HeartbeatResponse](d, "heartbeat", asked{node: running, body: heartbeat()})
	d.refused("acceptClaim", conflict, asked{body: operatorapi.ClaimAccept{Node: "web-2"}})
	d.refused("acceptClaim", conflict, asked{body: operatorapi.ClaimAccept{Create: "web-1"}})
	d.refused("acceptClaim", notFound, asked{body: operatorapi.ClaimAccept{Node: "nothing"}})
	d.refused("acceptClaim", unprocessable, asked{body: operatorapi.ClaimAccept{Node: "arm"}})
	done[operatorapi.Claim](d, "acceptClaim", asked{body: operatorapi.ClaimAccept{Create: "shelf-3"}})
	claimed := done[nodeapi.ClaimResponse](d, "claim", asked{body: machine("a")})
	done[nodeapi.EnrollResponse](d, "enroll", asked{body: nodeapi.EnrollRequest{BootstrapToken: claimed.BootstrapToken, CSRPEM: p.CSR(p.Key())}})
	d.refused("rejectClaim", conflict, asked{})
	if last := done[nodeapi.ClaimResponse](d, "claim", asked{body: machine("a")}); last.Status != nodeapi.ClaimExpired {
		d.t.Errorf("%+v", last)
	}
	d.certificateMistakes()
}

// certificateMistakes are those about keys, proofs and policies.
func (d *described) certificateMistakes() {
	d.t.Helper()
	p := d.p
	d.refused("enroll", "401 UNAUTHORIZED", asked{body: nodeapi.EnrollRequest{CSRPEM: p.CSR(p.Key())}})
	d.refused("enroll", "422 TOKEN_REFUSED", asked{body: nodeapi.EnrollRequest{BootstrapToken: "x", CSRPEM: p.CSR(p.Key())}})
	d.refused("enroll", "422 VALIDATION_ERROR", asked{body: nodeapi.EnrollRequest{BootstrapToken: "x", CSRPEM: "x"}})
	node := p.Enroll("cert-1", "amd64")
	d.refused("refreshCertificate", "422 VALIDATION_ERROR", asked{node: node, body: nodeapi.RefreshRequest{CSRPEM: "x"}})
	used := p.Key()
	done[nodeapi.EnrollResponse](d, "refreshCertificate", asked{node: node, body: nodeapi.RefreshRequest{CSRPEM: p.CSR(used)}})
	other := p.Enroll("cert-2", "amd64")
	d.refused("refreshCertificate", "409 CONFLICT", asked{node: other, body: nodeapi.RefreshRequest{CSRPEM: p.CSR(used)}})
	d.refused("renewCertificate", "409 CONFLICT", asked{body: p.RenewRequest(other, used)})
	bad := p.RenewRequest(node, p.Key())
	bad.Proof = []byte{1}
	d.refused("renewCertificate", "401 UNAUTHORIZED", asked{body: bad})
	bad.CSRPEM = "x"
	d.refused("renewCertificate", "422 VALIDATION_ERROR", asked{body: bad})
	late := p.RenewRequest(node, p.Key())
	p.Clock.Advance(day / 24)
	d.refused("renewCertificate", "422 PROOF_OUT_OF_TIME", asked{body: late})
	defer p.Clock.Stop()()
	for range 100 {
		if _, got := d.call("refreshCertificate", asked{node: node, body: nodeapi.RefreshRequest{CSRPEM: p.CSR(p.Key())}}); got != "200" {
			break
		}
	}
	d.refused("refreshCertificate", "429 TOO_MANY_REQUESTS", asked{node: node, body: nodeapi.RefreshRequest{CSRPEM: p.CSR(p.Key())}})
	d.refused("renewCertificate", "429 TOO_MANY_REQUESTS", asked{body: p.RenewRequest(node, p.Key())})
	execute(d.t, p, "UPDATE nodes SET state = 'terminated' WHERE id = ?", other.ID)
	d.refused("renewCertificate", "401 NODE_INACTIVE", asked{body: p.RenewRequest(other, p.Key())})
	execute(d.t, p, "UPDATE nodes SET state = 'active' WHERE id = ?", other.ID)
	p.Clock.Advance(200 * day)
	if waits := done[nodeapi.RenewResponse](d, "renewCertificate", asked{body: p.RenewRequest(other, p.Key())}); waits.Status != nodeapi.RenewWaiting {
		d.t.Errorf("%+v", waits)
	}
	done[operatorapi.ApproveResult](d, "approveNode", asked{args: map[string]string{"node": "cert-2"}, body: operatorapi.ApproveRequest{Deny: true}})
	d.refused("renewCertificate", "403 RENEWAL_REFUSED", asked{body: p.RenewRequest(other, p.Key())})
	done[operatorapi.RevokeResult](d, "revokeNode", asked{args: map[string]string{"node": "cert-1"}, body: operatorapi.RevokeRequest{}})
	d.refused("renewCertificate", "401 CERTIFICATE_REVOKED", asked{body: p.RenewRequest(node, p.Key())})
}
