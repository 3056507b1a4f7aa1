package operatorcli

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// operator runs powernode's commands against a platform.
type operator struct {
	t        *testing.T
	platform *platformtest.Platform
}

// run returns the exit code, standard output and standard error.
func (o operator) run(args ...string) (int, string, string) {
	o.t.Helper()
	var out, errs bytes.Buffer
	app := &cli.App{In: strings.NewReader(""), Out: &out, Err: &errs, Format: cli.Table, Getenv: func(key string) string {
		if key == "POWERNODE_CONFIG" {
			return filepath.Join(o.platform.Dir, operatorapi.CredentialName)
		}
		return ""
	}}
	code := app.Run(context.Background(), New(app), args)
	return code, out.String(), errs.String()
}

// ok runs a command that must succeed.
func (o operator) ok(args ...string) string {
	o.t.Helper()
	code, out, errs := o.run(args...)
	if code != 0 || errs != "" {
		o.t.Fatalf("powernode %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// into runs a command with --output json and decodes what it prints.
func (o operator) into(v any, args ...string) {
	o.t.Helper()
	if err := json.Unmarshal([]byte(o.ok(append(args, "--output", "json")...)), v); err != nil {
		o.t.Fatal(err)
	}
}

// TestNodeCommands goes through a node's life as the operator sees it.
func TestNodeCommands(t *testing.T) {
	p := platformtest.Start(t)
	o := operator{t, p}
	p.Publish(platformtest.Module{Name: "base", Version: "1.0", Files: map[string]string{"usr/x": "x", "etc/motd": "base"}})
	site := p.Push(platformtest.Module{Name: "site", Version: "2.0", Files: map[string]string{"usr/y": "y", "etc/motd": "site"}})
	site.Variety = "config"
	if _, err := p.Operator.RegisterModule(t.Context(), site); err != nil {
		t.Fatal(err)
	}

	if got := o.ok("node", "create", "web-1", "--architecture", "amd64"); !strings.Contains(got, "web-1") {
		t.Error(got)
	}
	if got := o.ok("module", "list"); !strings.Contains(got, "site") || !strings.Contains(got, "20000") || strings.Index(got, "base") > strings.Index(got, "site") {
		t.Error(got)
	}
	if got := o.ok("assign", "web-1", "base", "site"); !strings.Contains(got, "expected root") || strings.Count(got, "amd64") != 2 {
		t.Error(got)
	}
	var node operatorapi.NodeDetail
	o.into(&node, "node", "show", "web-1")
	if node.Node.Name != "web-1" || node.Node.Modules != 2 || len(node.Node.ExpectedRootDigest) != 64 || node.Node.Status != operatorapi.NodePending {
		t.Errorf("%+v", node)
	}
	if got := o.ok("node", "list"); !strings.Contains(got, "pending") || !strings.Contains(got, "never") || !strings.Contains(got, node.Node.ExpectedRootDigest[:12]) {
		t.Error(got)
	}

	var token operatorapi.Token
	o.into(&token, "token", "create", "web-1", "--ttl", "30m")
	key := p.Key()
	var enrolled nodeapi.EnrollResponse
	p.Do(nil, http.MethodPost, nodeapi.PathEnroll, nodeapi.EnrollRequest{BootstrapToken: token.Token, CSRPEM: p.CSR(key)}).Into(&enrolled)
	self := &platformtest.Node{ID: enrolled.InstanceID, TLS: p.Pair(enrolled.CertPEM, key)}
	p.Do(self, http.MethodPost, nodeapi.PathHeartbeat, nodeapi.Heartbeat{
		BootID: "b", AgentVersion: "v9", Architecture: "amd64", MountState: nodeapi.MountMounted, RootDigest: node.Node.ExpectedRootDigest, IntegrityLevel: "checked",
	}).Into(&nodeapi.HeartbeatResponse{})
	if got := o.ok("node", "list"); !strings.Contains(got, "running") || !strings.Contains(got, "in-step") || !strings.Contains(got, "checked") || !strings.Contains(got, "s ago") {
		t.Error(got)
	}
	p.Do(self, http.MethodPost, nodeapi.PathBootReports, nodeapi.BootReport{
		BootID: "b", Number: 7, AgentVersion: "v9", Outcome: nodeapi.BootHandedOver, EndedMillis: 4210, Generation: 3,
		Stages:   []nodeapi.BootStage{{Name: "verify", BegunMillis: 2310, Millis: 912, Result: "3 modules"}},
		Fallback: &nodeapi.BootTrial{Generation: 4, Verdict: nodeapi.TrialFailed, Reason: "nginx.service failed"},
	}).Into(&nodeapi.BootReportResponse{})
	got := o.ok("node", "show", "web-1")
	for _, want := range []string{
		"reported root", node.Node.ExpectedRootDigest, "/etc/motd", "node.enrolled", "CERTIFICATE", "v9 on amd64",
		"handed over, begun ", "took 4.21s", "generation 4 failed its trial: nginx.service failed", "node.boot_trouble", "912ms",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, token.Token) {
		t.Error("the node's page shows its token")
	}
	if got := o.ok("assign", "web-1", "site", "--allow-downgrade"); !strings.Contains(got, "allowed to site ") || strings.Contains(got, "remove most") {
		t.Error(got)
	}
	if got := o.ok("assign", "web-1", "site", "--allow-downgrade=false"); strings.Contains(got, "allowed to site ") {
		t.Error(got)
	}
	if got := o.ok("unassign", "web-1", "site", "base"); !strings.Contains(got, "modules:") || strings.Contains(got, "SEAL") || strings.Contains(got, "remove most") {
		t.Error(got)
	}
	if got := o.ok("unassign", "web-1", "site", "--remove-most"); !strings.Contains(got, "allowed until the node runs nothing that isn't assigned") {
		t.Error(got)
	}
	if got := o.ok("node", "show", "web-1"); !strings.Contains(got, "allowed until the node runs nothing that isn't assigned") {
		t.Error(got)
	}
}

// TestNodeCommandsRefused checks that each mistake gives one line on standard error, the right exit
// code, and what to do.
func TestNodeCommandsRefused(t *testing.T) {
	p, gone := platformtest.Start(t), platformtest.Start(t)
	gone.Stop()
	o := operator{t, p}
	o.ok("node", "create", "n")
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"node", "create", "n"}, 1, "there is a node called n already; choose another name"},
		{[]string{"node", "create", "A_B"}, 1, "DNS label"},
		{[]string{"node", "create"}, 1, "see powernode node create --help"},
		{[]string{"node", "show", "nobody"}, 1, `there is no node "nobody"; see powernode node list`},
		{[]string{"token", "create", "nobody"}, 1, "there is no node"},
		{[]string{"token", "create", "n", "--ttl", "0s"}, 1, "give --ttl between 1s and 168h"},
		{[]string{"token", "create", "n", "--ttl", "10000h"}, 1, "give --ttl between 1s and 168h"},
		{[]string{"assign", "n", "none"}, 1, `there is no module "none"; publish it first`},
		{[]string{"assign", "n"}, 1, "see powernode assign --help"},
		{[]string{"unassign", "n", "none"}, 1, "there is no module"},
		{[]string{"node", "list", "--config", filepath.Join(p.Dir, "none.json")}, 1, "copy operator.json"},
		{[]string{"node", "list", "--config", filepath.Join(gone.Dir, operatorapi.CredentialName)}, 5, "check that powernode-platform runs"},
	} {
		code, out, errs := o.run(tc.args...)
		if code != tc.code || out != "" || !strings.Contains(errs, tc.want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%v: exit code %d, output %q, error %q; want %d, %q", tc.args, code, out, errs, tc.code, tc.want)
		}
	}
}
