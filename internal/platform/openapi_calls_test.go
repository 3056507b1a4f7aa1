package platform_test

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// calls makes every call with success, with all that the answers may hold, and each body wrong in every way that the document knows.
func (d *described) calls() {
	d.t.Helper()
	d.asStranger()
	d.asOperator()
	node := d.enrolled("web-1")
	d.configured(node)
	d.tasks(node)
	d.reports(node)
	d.certificates()
	d.authorities()
}

// right makes a call with success, and then with every mistake in its body.
func right[T any](d *described, id string, a asked) T {
	d.t.Helper()
	out := done[T](d, id, a)
	d.wrong(id, a)
	return out
}

func (d *described) asStranger() {
	d.t.Helper()
	done[nodeapi.TimeResponse](d, "signedTime", asked{body: nodeapi.TimeRequest{Nonce: strings.Repeat("a", 64)}})
	d.wrong("signedTime", asked{body: nodeapi.TimeRequest{Nonce: strings.Repeat("a", 64)}})
	done[nodeapi.CAResponse](d, "getCABundle", asked{})
	d.call("getOpenAPI", asked{})
	claimed := right[nodeapi.ClaimResponse](d, "claim", asked{body: machine("a")})
	d.args["code"] = claimed.ClaimCode
	done[operatorapi.ClaimList](d, "listClaims", asked{})
	right[operatorapi.Claim](d, "acceptClaim", asked{body: operatorapi.ClaimAccept{Create: "shelf-3"}})
	done[nodeapi.ClaimResponse](d, "claim", asked{body: machine("a")})
	other := machine("")
	other.MAC = "52:54:00:12:34:57"
	rejected := done[nodeapi.ClaimResponse](d, "claim", asked{body: other})
	done[operatorapi.Claim](d, "rejectClaim", asked{args: map[string]string{"code": rejected.ClaimCode}})
	done[nodeapi.ClaimResponse](d, "claim", asked{body: other})
	done[operatorapi.ClaimList](d, "listClaims", asked{})
}

func (d *described) asOperator() {
	d.t.Helper()
	done[operatorapi.Info](d, "getInfo", asked{})
	right[operatorapi.OperatorToken](d, "createOperator", asked{body: operatorapi.OperatorCreate{Name: "ci", Role: operatorapi.RoleDeploy}})
	d.args["operator"] = "ci"
	done[operatorapi.OperatorToken](d, "createOperator", asked{body: operatorapi.OperatorCreate{Name: "late", Role: operatorapi.RoleRead}})
	done[operatorapi.OperatorList](d, "listOperators", asked{})
	done[operatorapi.OperatorList](d, "revokeOperator", asked{args: map[string]string{"operator": "late"}})
	done[operatorapi.AuditList](d, "listAudit", asked{query: "?by=operator&limit=1000&before=100000"})
	first := operatorapi.ModuleRegister{Repository: d.p.Push(platformtest.Module{Name: "base", Version: "1", Files: map[string]string{"etc/motd": "base"}}).Repository}
	base := d.p.Push(platformtest.Module{Name: "base", Version: "1", Files: map[string]string{"etc/motd": "base"}})
	position := 30
	first.Digest, first.Variety, first.CategoryPosition, first.Priority = base.Digest, "config", &position, 5
	module := right[operatorapi.Module](d, "registerModule", asked{body: first})
	d.args["module"] = module.ID
	site := d.p.Push(platformtest.Module{Name: "site", Version: "1", Files: map[string]string{"etc/motd": "site"}})
	done[operatorapi.Module](d, "registerModule", asked{body: site})
	done[operatorapi.ModuleList](d, "listModules", asked{})
	done[operatorapi.Module](d, "showModule", asked{})
}

// enrolled makes a node, enrolls it, and has it report.
func (d *described) enrolled(name string) *platformtest.Node {
	d.t.Helper()
	d.args["node"] = name
	right[operatorapi.Node](d, "createNode", asked{body: operatorapi.NodeCreate{Name: name, Architecture: "amd64"}})
	token := right[operatorapi.Token](d, "createToken", asked{body: operatorapi.TokenCreate{TTLSeconds: 60}})
	key := d.p.Key()
	in := nodeapi.EnrollRequest{BootstrapToken: token.Token, CSRPEM: d.p.CSR(key), AgentVersion: "v1", Architecture: "amd64"}
	out := right[nodeapi.EnrollResponse](d, "enroll", asked{body: in})
	node := d.p.With(&platformtest.Node{ID: out.InstanceID, Name: name}, out.CertPEM, key)
	done[operatorapi.NodeDetail](d, "getNode", asked{})
	return node
}

func (d *described) configured(node *platformtest.Node) {
	d.t.Helper()
	done[nodeapi.ModuleList](d, "getModules", asked{node: node})
	yes := true
	done[operatorapi.AssignmentList](d, "assignModule", asked{body: operatorapi.AssignmentCreate{Module: "site"}})
	right[operatorapi.AssignmentList](d, "assignModule", asked{body: operatorapi.AssignmentCreate{Module: "base", AllowDowngrade: &yes}})
	done[operatorapi.AssignmentList](d, "listAssignments", asked{})
	done[nodeapi.ModuleList](d, "getModules", asked{node: node})
	done[nodeapi.ModuleDetail](d, "getModule", asked{node: node})
	done[operatorapi.NodeDetail](d, "getNode", asked{}) // with a conflict between the two
	done[operatorapi.AssignmentList](d, "unassignModule", asked{query: "?remove_most=true"})
	done[operatorapi.NodeDetail](d, "getNode", asked{})
	done[nodeapi.ModuleList](d, "getModules", asked{node: node})

	done[operatorapi.NodeConfig](d, "getNodeConfig", asked{})
	done[nodeapi.NodeConfig](d, "getConfig", asked{node: node})
	d.refused("getAuthorizedKeys", "404 NOT_FOUND", asked{node: node})
	name, hosts := "web-1.example.org", []operatorapi.HostEntry{{Address: "10.0.0.5", Names: []string{"db"}}}
	right[operatorapi.NodeConfig](d, "changeNodeConfig", asked{body: operatorapi.NodeConfigChange{
		Hostname: &name, Hosts: &hosts, Users: []operatorapi.UserKeys{{Name: "root", AuthorizedKeys: []string{sshKey(d.t, "a")}}},
	}})
	done[operatorapi.NodeConfig](d, "changeNodeConfig", asked{body: operatorapi.NodeConfigChange{Users: []operatorapi.UserKeys{{Name: "deploy", AuthorizedKeys: []string{}, NoKeys: true}}}})
	done[operatorapi.NodeConfig](d, "getNodeConfig", asked{})
	done[nodeapi.NodeConfig](d, "getConfig", asked{node: node})
	done[nodeapi.AuthorizedKeys](d, "getAuthorizedKeys", asked{node: node})
}

func (d *described) tasks(node *platformtest.Node) {
	d.t.Helper()
	options := json.RawMessage(`{"modules":["base"],"action":"restart"}`)
	ask := func() operatorapi.Task {
		return done[operatorapi.Task](d, "createTask", asked{body: operatorapi.TaskCreate{Kind: "init", Options: options, DeadlineSeconds: 60}})
	}
	lease := func(task operatorapi.Task) string {
		got := done[nodeapi.LeaseResponse](d, "leaseTasks", asked{node: node, body: nodeapi.LeaseRequest{Max: 1, WaitSeconds: 30, Holding: []string{}}})
		if len(got.Tasks) != 1 || got.Tasks[0].ID != task.ID {
			d.t.Fatalf("%+v", got)
		}
		d.args["task"] = task.ID
		return got.Tasks[0].LeaseID
	}
	d.wrong("createTask", asked{body: operatorapi.TaskCreate{ID: "9c3e1a52-4f0b-4d5e-8d52-0c5b1f2f7a10", Kind: "init", Options: options, DeadlineSeconds: 60}})
	first := ask()
	d.args["task"] = first.ID
	done[operatorapi.TaskDetail](d, "getTask", asked{})
	id := lease(first)
	right[nodeapi.TaskStanding](d, "renewTask", asked{node: node, body: nodeapi.RenewTask{LeaseID: id}})
	right[nodeapi.TaskStanding](d, "progressTask", asked{node: node, body: nodeapi.TaskProgress{LeaseID: id, Percent: 50, Message: "half", Output: "é\n", OutputOffset: 5}})
	done[operatorapi.TaskDetail](d, "getTask", asked{})
	d.wrong("completeTask", asked{node: node, body: nodeapi.CompleteTask{LeaseID: id, Result: json.RawMessage(`{}`)}})
	done[nodeapi.TaskEnd](d, "completeTask", asked{node: node, body: nodeapi.CompleteTask{LeaseID: id, Result: json.RawMessage(`{"units":["x"]}`)}})
	done[operatorapi.TaskDetail](d, "getTask", asked{})
	id = lease(ask())
	done[operatorapi.Task](d, "cancelTask", asked{})
	d.wrong("failTask", asked{node: node, body: nodeapi.FailTask{LeaseID: id, Error: "x", Code: nodeapi.FailCancelled, Result: json.RawMessage(`{}`)}})
	done[nodeapi.TaskEnd](d, "failTask", asked{node: node, body: nodeapi.FailTask{LeaseID: id, Error: "stopped", Code: nodeapi.FailCancelled}})
	done[operatorapi.TaskDetail](d, "getTask", asked{})
	done[operatorapi.TaskList](d, "listTasks", asked{query: "?node=web-1&open=true&limit=1"})
	done[operatorapi.TaskList](d, "listTasks", asked{})
	right[nodeapi.LeaseResponse](d, "leaseTasks", asked{node: node, body: nodeapi.LeaseRequest{Max: 1, Holding: []string{id}}})
	done[nodeapi.LeaseResponse](d, "leaseTasks", asked{node: node, body: nodeapi.LeaseRequest{}})
}

func (d *described) reports(node *platformtest.Node) {
	d.t.Helper()
	hb := heartbeat()
	hb.Machine, hb.CABundleSHA256, hb.ConfigDigest = nodeapi.Machine{DMIUUID: "dmi", VMGenerationID: "vm"}, strings.Repeat("a", 64), strings.Repeat("b", 64)
	right[nodeapi.HeartbeatResponse](d, "heartbeat", asked{node: node, body: hb})
	hb.ModuleDigests = nil
	done[nodeapi.HeartbeatResponse](d, "heartbeat", asked{node: node, body: hb})
	done[operatorapi.NodeDetail](d, "getNode", asked{})
	hb.StateHash = hb.Hash()
	done[nodeapi.HeartbeatResponse](d, "heartbeat", asked{node: node, body: hb})
	right[nodeapi.HeartbeatResponse](d, "heartbeat", asked{node: node, body: hb.Pulse()})
	pulse := hb.Pulse()
	pulse.StateHash = strings.Repeat("c", 64)
	done[nodeapi.HeartbeatResponse](d, "heartbeat", asked{node: node, body: pulse})

	boot := bootReport("boot-1")
	boot.Fallback, boot.Stage, boot.Failure = &nodeapi.BootTrial{Generation: 4, Attempts: 3, Limit: 3, Verdict: nodeapi.TrialFailed, Reason: "x"}, "fetch", "x"
	right[nodeapi.BootReportResponse](d, "reportBoot", asked{node: node, body: boot})
	done[nodeapi.BootReportResponse](d, "reportBoot", asked{node: node, body: nodeapi.BootReport{BootID: "boot-2", AgentVersion: "v1", Outcome: nodeapi.BootUnderWay}})
	right[nodeapi.EventsResponse](d, "tellEvents", asked{node: node, body: nodeapi.EventsRequest{Events: []nodeapi.Event{{
		ID: "9c3e1a52-4f0b-4d5e-8d52-0c5b1f2f7a10", At: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), Kind: "task.done", Severity: nodeapi.SeverityWarning, Text: "done",
		Fields: map[string]string{"task": "x"},
	}}}})
	done[operatorapi.NodeDetail](d, "getNode", asked{})
	done[operatorapi.NodeList](d, "listNodes", asked{query: "?state=drifted"})
	done[operatorapi.NodeList](d, "listNodes", asked{})
	done[operatorapi.EventList](d, "listEvents", asked{})
	done[operatorapi.NodeEventList](d, "listNodeEvents", asked{query: "?node=web-1&limit=10"})
}

func (d *described) certificates() {
	d.t.Helper()
	node := d.p.Enroll("web-2", "amd64")
	key := d.p.Key()
	out := right[nodeapi.EnrollResponse](d, "refreshCertificate", asked{node: node, body: nodeapi.RefreshRequest{CSRPEM: d.p.CSR(key), AgentVersion: "v1"}})
	node = d.p.With(node, out.CertPEM, key)
	right[nodeapi.RenewResponse](d, "renewCertificate", asked{body: d.p.RenewRequest(node, d.p.Key())})
	d.p.Clock.Advance(200 * day)
	mine := d.p.RenewRequest(node, d.p.Key())
	if waits := done[nodeapi.RenewResponse](d, "renewCertificate", asked{body: mine}); waits.Status != nodeapi.RenewWaiting {
		d.t.Errorf("%+v", waits)
	}
	of := map[string]string{"node": "web-2"}
	done[operatorapi.NodeDetail](d, "getNode", asked{args: of})
	right[operatorapi.ApproveResult](d, "approveNode", asked{args: of, body: operatorapi.ApproveRequest{}})
	done[operatorapi.NodeDetail](d, "getNode", asked{args: of})
	done[nodeapi.RenewResponse](d, "renewCertificate", asked{body: mine})
	done[operatorapi.UnfiledList](d, "listUnfiled", asked{})
	done[operatorapi.UnfiledList](d, "approveUnfiled", asked{})
	right[operatorapi.RevokeResult](d, "revokeNode", asked{args: of, body: operatorapi.RevokeRequest{}})
	done[operatorapi.NodeDetail](d, "getNode", asked{args: of})
	done[operatorapi.AuditList](d, "listAudit", asked{})
}

func (d *described) authorities() {
	d.t.Helper()
	d.refused("activateCA", "422 VALIDATION_ERROR", asked{})
	d.refused("retireCA", "422 VALIDATION_ERROR", asked{body: operatorapi.CARetire{}})
	d.p.Enroll("web-3", "amd64")
	right[operatorapi.CAList](d, "prepareCA", asked{body: operatorapi.CAPrepare{}})
	d.refused("prepareCA", "422 VALIDATION_ERROR", asked{body: operatorapi.CAPrepare{}})
	done[operatorapi.CAList](d, "activateCA", asked{})
	d.refused("retireCA", "409 CONFLICT", asked{body: operatorapi.CARetire{}})
	done[operatorapi.CAList](d, "listCA", asked{})
	d.wrong("retireCA", asked{body: operatorapi.CARetire{}})
	done[operatorapi.CAList](d, "retireCA", asked{body: operatorapi.CARetire{Force: true}})
	done[operatorapi.CAList](d, "listCA", asked{})
}
