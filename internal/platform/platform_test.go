package platform_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
	"github.com/powernode/powernode-agent/internal/platform"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
	"github.com/powernode/powernode-agent/internal/platform/postgrestest"
)

// execute changes the platform's database behind its back.
func execute(t *testing.T, p *platformtest.Platform, query string, args ...any) {
	t.Helper()
	p.Execute(query, args...)
}

func heartbeat() nodeapi.Heartbeat {
	return nodeapi.Heartbeat{
		BootID: "6b0f9f2e-1d1c-4b0e-9f5d-2a1f4f1c0e11", AgentVersion: "v1.2.3", Architecture: "amd64", UptimeSeconds: 12,
		ModuleDigests: map[string]string{"id": "sha256:" + strings.Repeat("a", 64)}, MountState: nodeapi.MountMounted,
		LoadAverage: "0.10 0.20 0.30", MemoryFreeKB: 1234, RootDigest: strings.Repeat("b", 64), IntegrityLevel: "checked", Generation: 3,
		Remarks: []string{"damaged: /usr/a of base 1"},
	}
}

// TestMainJob goes the way of a node: created, assigned, enrolled, listed, alive.
func TestMainJob(t *testing.T) {
	p := platformtest.Start(t)
	ctx := t.Context()
	base := p.Publish(platformtest.Module{Name: "base", Version: "1.0", Files: map[string]string{"etc/motd": "base", "usr/bin/x": strings.Repeat("x", 5000)}})
	site := p.Push(platformtest.Module{Name: "site", Version: "2.0", Files: map[string]string{"etc/motd": "site", "usr/share/site": "s"}})
	site.Variety = "config"
	top, err := p.Operator.RegisterModule(ctx, site)
	if err != nil {
		t.Fatal(err)
	}
	if base.EffectivePriority != 10_000 || top.EffectivePriority != 20_000 || top.Variety != "config" || !strings.HasPrefix(top.Repository, p.Config.RegistryHost()+"/") {
		t.Errorf("%+v\n%+v", base, top)
	}
	node := p.Enroll("web-1", "amd64")
	for _, name := range []string{"base", top.ID} {
		if _, err := p.Operator.Assign(ctx, "web-1", operatorapi.AssignmentCreate{Module: name}); err != nil {
			t.Fatal(err)
		}
	}

	var list nodeapi.ModuleList
	p.Do(node, http.MethodGet, nodeapi.PathModules, nil).Into(&list)
	want := []nodeapi.Module{
		{ID: top.ID, Name: "site", Variety: "config", Version: "2.0", EffectivePriority: 20_000, Repository: top.Repository, Digest: top.Digest},
		{ID: base.ID, Name: "base", Variety: "subscription", Version: "1.0", EffectivePriority: 10_000, Repository: base.Repository, Digest: base.Digest},
	}
	if diff := cmp.Diff(want, list.Modules); diff != "" || list.Count != 2 || len(list.RootDigest) != 64 {
		t.Errorf("root %q\n%s", list.RootDigest, diff)
	}
	var detail nodeapi.ModuleDetail
	p.Do(node, http.MethodGet, nodeapi.PathModules+"/"+top.ID, nil).Into(&detail)
	if diff := cmp.Diff(want[0], detail.Module); diff != "" {
		t.Error(diff)
	}

	// The node pulls its module, with its certificate alone.
	a := p.Do(node, http.MethodGet, "/v2/modules/site/manifests/"+top.Digest, nil)
	if a.Status != http.StatusOK || sum(a.Body) != top.Digest {
		t.Errorf("pull: %d %s", a.Status, a.Body)
	}

	hb := heartbeat()
	hb.RootDigest = list.RootDigest
	var response nodeapi.HeartbeatResponse
	p.Do(node, http.MethodPost, nodeapi.PathHeartbeat, hb).Into(&response)
	if !response.Acknowledged || response.NextPollSeconds != 30 || time.Since(response.ServerTime).Abs() > time.Hour {
		t.Errorf("%+v", response)
	}
	shown, err := p.Operator.Node(ctx, "web-1")
	if err != nil {
		t.Fatal(err)
	}
	n := shown.Node
	if n.ID != node.ID || n.Status != operatorapi.NodeRunning || !n.InStep || n.ExpectedRootDigest != list.RootDigest || n.Modules != 2 || n.Report == nil {
		t.Fatalf("%+v", n)
	}
	wantReport := operatorapi.Report{
		ReceivedAt: n.Report.ReceivedAt, AgeSeconds: n.Report.AgeSeconds, BootID: hb.BootID, AgentVersion: hb.AgentVersion, Architecture: hb.Architecture,
		UptimeSeconds: 12, ModuleDigests: hb.ModuleDigests, MountState: "mounted", LoadAverage: hb.LoadAverage, MemoryFreeKB: 1234,
		RootDigest: hb.RootDigest, IntegrityLevel: "checked", Generation: 3, Remarks: hb.Remarks,
	}
	if diff := cmp.Diff(wantReport, *n.Report); diff != "" {
		t.Error(diff)
	}
	if len(shown.Assignments) != 2 || shown.Assignments[0].Name != "site" || len(shown.Certificates) != 1 || len(shown.Conflicts) != 1 {
		t.Errorf("%+v", shown)
	}
	if c := shown.Conflicts[0]; c.Path != "/etc/motd" || c.Winner != "site" {
		t.Errorf("%+v", c)
	}

	p.Clock.Advance(2 * time.Minute)
	nodes, err := p.Operator.Nodes(ctx)
	if err != nil || nodes.Count != 1 || nodes.Nodes[0].Status != operatorapi.NodeRunning || nodes.Nodes[0].Report.AgeSeconds < 120 {
		t.Errorf("%+v, %v", nodes, err)
	}
	p.Clock.Advance(2 * time.Minute)
	if nodes, err = p.Operator.Nodes(ctx); err != nil || nodes.Nodes[0].Status != operatorapi.NodeStale {
		t.Errorf("%+v, %v", nodes, err)
	}

	// Without the upper module the root is another, and the node is out of step.
	after, err := p.Operator.Unassign(ctx, "web-1", "site")
	if err != nil || after.Count != 1 || after.ExpectedRootDigest == list.RootDigest || after.ExpectedRootDigest == "" {
		t.Errorf("%+v, %v", after, err)
	}
	if nodes, err = p.Operator.Nodes(ctx); err != nil || nodes.Nodes[0].InStep {
		t.Errorf("%+v, %v", nodes, err)
	}
	a = p.Do(node, http.MethodGet, "/v2/modules/site/manifests/"+top.Digest, nil)
	if a.Status != http.StatusNotFound {
		t.Errorf("a module that isn't assigned any more: %d", a.Status)
	}
}

func sum(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

// TestRestart checks that everything outlives the process, and that the state is one directory.
func TestRestart(t *testing.T) {
	p := platformtest.Start(t)
	p.Publish(platformtest.Module{Name: "base", Version: "1.0", Files: map[string]string{"usr/x": "x"}})
	node := p.Enroll("web-1", "amd64")
	if _, err := p.Operator.Assign(t.Context(), "web-1", operatorapi.AssignmentCreate{Module: "base"}); err != nil {
		t.Fatal(err)
	}
	var before, after nodeapi.ModuleList
	p.Do(node, http.MethodGet, nodeapi.PathModules, nil).Into(&before)
	again := p.Restart()
	if again.Config.URL != p.Config.URL || again.Config.CAPEM != p.Config.CAPEM || !again.Config.Token.Equal(p.Config.Token) {
		t.Errorf("the credentials changed")
	}
	again.Do(node, http.MethodGet, nodeapi.PathModules, nil).Into(&after)
	if diff := cmp.Diff(before, after); diff != "" {
		t.Error(diff)
	}
	if a := again.Do(nil, http.MethodGet, "/healthz", nil); a.Status != 200 || !strings.Contains(string(a.Body), "true") {
		t.Errorf("health: %d %s", a.Status, a.Body)
	}
}

// TestEnrollRules goes through what an enrollment may be answered.
func TestEnrollRules(t *testing.T) {
	p := platformtest.Start(t)
	ctx := t.Context()
	if _, err := p.Operator.CreateNode(ctx, operatorapi.NodeCreate{Name: "n", Architecture: "arm64"}); err != nil {
		t.Fatal(err)
	}
	newToken := func() string {
		t.Helper()
		token, err := p.Operator.CreateToken(ctx, "n", operatorapi.TokenCreate{TTLSeconds: 60})
		if err != nil || len(token.Token) != 43 || token.NodeName != "n" || token.PlatformURL != p.URL || !strings.Contains(token.CAPEM, "BEGIN CERTIFICATE") {
			t.Fatalf("%+v, %v", token, err)
		}
		return token.Token
	}
	key := p.Key()
	csr := p.CSR(key)
	token := newToken()
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		body   any
		status int
		code   nodeapi.Code
	}{
		"no token":             {nodeapi.EnrollRequest{CSRPEM: csr}, 401, nodeapi.CodeUnauthorized},
		"no request":           {nodeapi.EnrollRequest{BootstrapToken: token}, 400, nodeapi.CodeParameterMissing},
		"unknown token":        {nodeapi.EnrollRequest{BootstrapToken: "x", CSRPEM: csr}, 422, nodeapi.CodeTokenRefused},
		"long token":           {nodeapi.EnrollRequest{BootstrapToken: strings.Repeat("x", 2000), CSRPEM: csr}, 422, nodeapi.CodeTokenRefused},
		"bad request":          {nodeapi.EnrollRequest{BootstrapToken: token, CSRPEM: "x"}, 422, nodeapi.CodeValidation},
		"another node":         {nodeapi.EnrollRequest{BootstrapToken: token, CSRPEM: csr, InstanceID: "other"}, 422, nodeapi.CodeTokenRefused},
		"another architecture": {nodeapi.EnrollRequest{BootstrapToken: token, CSRPEM: csr, Architecture: "amd64"}, 422, nodeapi.CodeValidation},
		"no architecture":      {nodeapi.EnrollRequest{BootstrapToken: token, CSRPEM: csr, Architecture: "mips"}, 422, nodeapi.CodeValidation},
		"not JSON":             {strings.NewReader("{"), 400, nodeapi.CodeValidation},
		"an array":             {strings.NewReader("[]"), 400, nodeapi.CodeValidation},
		"empty":                {strings.NewReader(""), 400, nodeapi.CodeValidation},
		"too long":             {strings.NewReader(`{"csr_pem":"` + strings.Repeat("x", 65<<10) + `"}`), 413, nodeapi.CodeTooLarge},
	} {
		a := p.Do(nil, http.MethodPost, nodeapi.PathEnroll, tc.body)
		if a.Status != tc.status || a.Envelope.Code != tc.code || a.Envelope.Success || a.Envelope.Error == "" {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}

	enroll := func(in nodeapi.EnrollRequest, headers ...string) (nodeapi.EnrollResponse, platformtest.Answer) {
		t.Helper()
		a := p.Do(nil, http.MethodPost, nodeapi.PathEnroll, in, headers...)
		var out nodeapi.EnrollResponse
		if a.Status == 200 {
			a.Into(&out)
		}
		return out, a
	}
	first, _ := enroll(nodeapi.EnrollRequest{BootstrapToken: token, CSRPEM: csr, Architecture: "arm64"})
	block, _ := pem.Decode([]byte(first.CertPEM))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if cert.Subject.String() != "CN="+first.InstanceID || first.MTLSSubject != first.InstanceID || !cert.NotAfter.Equal(first.NotAfter) ||
		first.CertificateID == "" || first.CAChainPEM != p.Config.CAPEM {
		t.Errorf("%+v", first)
	}
	// The reply is lost ten times, also beyond the token's life; with a request made anew by
	// the same key.
	p.Clock.Advance(time.Hour)
	for range 10 {
		again, a := enroll(nodeapi.EnrollRequest{BootstrapToken: token, CSRPEM: p.CSR(key)})
		if diff := cmp.Diff(first, again); diff != "" {
			t.Fatalf("%s\n%s", diff, a.Body)
		}
	}
	// Another key with the used token, an expired token and an unknown one look the same.
	_, used := enroll(nodeapi.EnrollRequest{BootstrapToken: token, CSRPEM: p.CSR(p.Key())})
	_, unknown := enroll(nodeapi.EnrollRequest{BootstrapToken: strings.Repeat("u", 43), CSRPEM: csr})
	late := newToken()
	p.Clock.Advance(61 * time.Second)
	_, expired := enroll(nodeapi.EnrollRequest{BootstrapToken: late, CSRPEM: csr})
	for name, a := range map[string]platformtest.Answer{"used": used, "unknown": unknown, "expired": expired} {
		if a.Status != 422 || string(a.Body) != string(unknown.Body) {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	// The operator sees which was which.
	events, err := p.Operator.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, e := range events.Events {
		text.WriteString(e.Kind + " " + e.NodeID + " " + e.Text + "\n")
	}
	for _, want := range []string{
		"enroll.refused " + first.InstanceID + " enrollment from 127.0.0.1 refused: the token was used by another key",
		"enroll.refused " + first.InstanceID + " enrollment from 127.0.0.1 refused: the token has expired",
		"enroll.refused  enrollment from 127.0.0.1 refused: the token is unknown",
		"enroll.refused " + first.InstanceID + " enrollment from 127.0.0.1 refused: the token belongs to another node",
		"node.enrolled " + first.InstanceID,
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no event %q in\n%s", want, text.String())
		}
	}
	if strings.Contains(text.String(), token) {
		t.Error("an event holds a token")
	}
	// By header, as the existing agent may, and by a P-256 key.
	if out, a := enroll(nodeapi.EnrollRequest{CSRPEM: p.CSR(p256)}, "X-Bootstrap-Token", newToken()); out.InstanceID != first.InstanceID {
		t.Errorf("%s", a.Body)
	}
	// The database holds no token.
	for _, name := range []string{"platform.db", "platform.db-wal"} {
		if postgrestest.Wanted() {
			break // its tables are the same
		}
		data, err := os.ReadFile(filepath.Join(p.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{token, late, p.Config.Token.Reveal()} {
			if strings.Contains(string(data), secret) {
				t.Errorf("%s holds a token", name)
			}
		}
	}
}

// TestEnrollAtOnce lets many strangers use one token at the same moment, over TLS.
func TestEnrollAtOnce(t *testing.T) {
	p := platformtest.Start(t)
	if _, err := p.Operator.CreateNode(t.Context(), operatorapi.NodeCreate{Name: "n"}); err != nil {
		t.Fatal(err)
	}
	token, err := p.Operator.CreateToken(t.Context(), "n", operatorapi.TokenCreate{})
	if err != nil {
		t.Fatal(err)
	}
	csrs := []string{p.CSR(p.Key()), p.CSR(p.Key())}
	var mu sync.Mutex
	answers := map[string]int{}
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			a := p.Do(nil, http.MethodPost, nodeapi.PathEnroll, nodeapi.EnrollRequest{BootstrapToken: token.Token, CSRPEM: csrs[i%2]})
			mu.Lock()
			defer mu.Unlock()
			answers[string(a.Body)]++
		})
	}
	wg.Wait()
	if len(answers) != 2 {
		t.Errorf("%d different answers, want the certificate and the refusal: %v", len(answers), answers)
	}
	for text, n := range answers {
		if n != 12 {
			t.Errorf("%d times %s", n, text)
		}
	}
}

// TestNodeAuthorization presents every kind of certificate to every call of the node_api.
func TestNodeAuthorization(t *testing.T) {
	p := platformtest.Start(t)
	m := p.Publish(platformtest.Module{Name: "base", Version: "1.0", Files: map[string]string{"usr/x": "x"}})
	secret := p.Publish(platformtest.Module{Name: "secret", Version: "1.0", Files: map[string]string{"usr/y": "y"}})
	nodes := map[string]*platformtest.Node{}
	for _, name := range []string{"good", "other", "revoked", "terminated", "replaced", "expired-on-file", "forgotten"} {
		nodes[name] = p.Enroll(name, "amd64")
		if _, err := p.Operator.Assign(t.Context(), name, operatorapi.AssignmentCreate{Module: "base"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Operator.Assign(t.Context(), "other", operatorapi.AssignmentCreate{Module: "secret"}); err != nil {
		t.Fatal(err)
	}
	nodes["none"] = nil
	execute(t, p, "UPDATE certificates SET revoked_at = 1 WHERE node_id = ?", nodes["revoked"].ID)
	execute(t, p, "UPDATE nodes SET state = 'terminated' WHERE id = ?", nodes["terminated"].ID)
	execute(t, p, "UPDATE certificates SET not_after = 1 WHERE node_id = ?", nodes["expired-on-file"].ID)
	execute(t, p, "UPDATE tokens SET certificate_id = NULL WHERE node_id = ?", nodes["forgotten"].ID)
	execute(t, p, "DELETE FROM certificates WHERE node_id = ?", nodes["forgotten"].ID)
	p.EnrollAgain("replaced")

	type call struct {
		method, path string
		body         any
	}
	calls := []call{
		{http.MethodGet, nodeapi.PathModules, nil},
		{http.MethodGet, nodeapi.PathModules + "/" + m.ID, nil},
		{http.MethodPost, nodeapi.PathHeartbeat, heartbeat()},
		{http.MethodPost, nodeapi.PathBootReports, bootReport("boot")},
		{http.MethodGet, "/v2/", nil},
		{http.MethodGet, "/v2/modules/base/manifests/" + m.Digest, nil},
	}
	for name, node := range nodes {
		for _, c := range calls {
			want := http.StatusUnauthorized
			if name == "good" || name == "other" {
				want = http.StatusOK
			}
			a := p.Do(node, c.method, c.path, c.body)
			if a.Status != want {
				t.Errorf("%s: %s %s: %d %s", name, c.method, c.path, a.Status, a.Body)
			}
		}
	}
	// What belongs to another node doesn't exist.
	for _, path := range []string{nodeapi.PathModules + "/" + secret.ID, "/v2/modules/secret/manifests/" + secret.Digest, nodeapi.PathModules + "/none"} {
		if a := p.Do(nodes["good"], http.MethodGet, path, nil); a.Status != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, a.Status, a.Body)
		}
		if a := p.Do(nodes["other"], http.MethodGet, path, nil); (a.Status == http.StatusOK) == strings.HasSuffix(path, "none") {
			t.Errorf("%s of its own: %d", path, a.Status)
		}
	}
	// A node's certificate is no operator's token, and a header that claims one is nothing.
	for _, headers := range [][]string{nil, {"Authorization", "Bearer x"}, {"X-Client-S-DN-CN", nodes["good"].ID}, {"X-Forwarded-TLS-Client-Cert-Subject", "CN=" + nodes["good"].ID}} {
		if a := p.Do(nodes["good"], http.MethodGet, operatorapi.PathNodes, nil, headers...); a.Status != http.StatusUnauthorized {
			t.Errorf("%v: %d", headers, a.Status)
		}
		if a := p.Do(nil, http.MethodGet, nodeapi.PathModules, nil, headers...); a.Status != http.StatusUnauthorized {
			t.Errorf("%v: %d", headers, a.Status)
		}
	}
	shown, err := p.Operator.Node(t.Context(), "revoked")
	if err != nil || len(shown.Events) == 0 || shown.Events[0].Kind != "access.refused" || !strings.Contains(shown.Events[0].Text, "revoked") {
		t.Errorf("%+v, %v", shown.Events, err)
	}
}

// overOneConnection returns what asks for the node's modules, each time on the connection that is open already, and returns the status.
func overOneConnection(t *testing.T, p *platformtest.Platform, node *platformtest.Node) func() int {
	t.Helper()
	client := p.Client(node)
	client.Transport.(*http.Transport).DisableKeepAlives = false
	t.Cleanup(client.CloseIdleConnections)
	return func() int {
		t.Helper()
		resp, err := client.Get(p.URL + nodeapi.PathModules)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
}

// TestRevokedOnAnOpenConnection revokes a certificate while its connection stays open: the next
// request is refused.
func TestRevokedOnAnOpenConnection(t *testing.T) {
	p := platformtest.Start(t)
	node := p.Enroll("n", "amd64")
	get := overOneConnection(t, p, node)
	if got := get(); got != http.StatusOK {
		t.Fatal(got)
	}
	execute(t, p, "UPDATE certificates SET revoked_at = 1 WHERE node_id = ?", node.ID)
	if got := get(); got != http.StatusUnauthorized {
		t.Errorf("after the revocation: %d", got)
	}
	execute(t, p, "UPDATE certificates SET revoked_at = NULL WHERE node_id = ?", node.ID)
	p.Clock.Advance(91 * 24 * time.Hour)
	if got := get(); got != http.StatusUnauthorized {
		t.Errorf("after its expiry: %d", got)
	}
}

// TestForeignCertificates presents certificates that the handshake must end at.
func TestForeignCertificates(t *testing.T) {
	p, stranger := platformtest.Start(t), platformtest.Start(t)
	foreign := stranger.Enroll("n", "amd64")
	late := p.Enroll("late", "amd64")
	for name, node := range map[string]*platformtest.Node{"of another platform": foreign, "expired": late} {
		if name == "expired" {
			p.Clock.Advance(91 * 24 * time.Hour)
		}
		client := p.Client(node)
		// Otherwise Go's client keeps a certificate to itself that the server doesn't ask for.
		client.Transport.(*http.Transport).TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &node.TLS, nil
		}
		resp, err := client.Get(p.URL + nodeapi.PathModules)
		if err == nil {
			resp.Body.Close()
			t.Errorf("%s: status %d", name, resp.StatusCode)
		}
	}
	// TLS 1.2 isn't spoken.
	config, err := p.Config.TLS()
	if err != nil {
		t.Fatal(err)
	}
	config.MinVersion, config.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if conn, err := tls.Dial("tcp", p.Config.RegistryHost(), config); err == nil {
		conn.Close()
		t.Error("TLS 1.2 is spoken")
	}
}

// TestOperatorErrors goes through what the operator can get wrong, by the client.
func TestOperatorErrors(t *testing.T) {
	p := platformtest.Start(t)
	ctx := t.Context()
	op := p.Operator
	m := p.Publish(platformtest.Module{Name: "base", Version: "1.0", Files: map[string]string{"usr/x": "x"}})
	arm := p.Publish(platformtest.Module{Name: "arm", Version: "1.0", Architecture: "arm64", Files: map[string]string{"usr/x": "x"}})
	if _, err := op.CreateNode(ctx, operatorapi.NodeCreate{Name: "n", Architecture: "amd64"}); err != nil {
		t.Fatal(err)
	}
	good := operatorapi.ModuleRegister{Repository: "modules/base", Digest: m.Digest}
	register := func(change func(*operatorapi.ModuleRegister)) error {
		in := good
		change(&in)
		_, err := op.RegisterModule(ctx, in)
		return err
	}
	second := func(_ any, err error) error { return err }
	big := 1000
	other := p.Push(platformtest.Module{Name: "base", Version: "1.0", Files: map[string]string{"usr/x": "another"}})
	for name, tc := range map[string]struct {
		err  error
		want string
	}{
		"name taken":          {second(op.CreateNode(ctx, operatorapi.NodeCreate{Name: "n"})), "there is a node called n already"},
		"name with a slash":   {second(op.CreateNode(ctx, operatorapi.NodeCreate{Name: "a/b"})), "DNS label"},
		"name too long":       {second(op.CreateNode(ctx, operatorapi.NodeCreate{Name: strings.Repeat("a", 64)})), "DNS label"},
		"name like an ID":     {second(op.CreateNode(ctx, operatorapi.NodeCreate{Name: m.ID})), "DNS label"},
		"no name":             {second(op.CreateNode(ctx, operatorapi.NodeCreate{})), "DNS label"},
		"architecture":        {second(op.CreateNode(ctx, operatorapi.NodeCreate{Name: "x", Architecture: "i386"})), "want amd64 or arm64"},
		"no such node":        {second(op.Node(ctx, "nobody")), "there is no node"},
		"hostile node":        {second(op.Node(ctx, "../modules")), "there is no node"},
		"token of nobody":     {second(op.CreateToken(ctx, "nobody", operatorapi.TokenCreate{})), "there is no node"},
		"endless token":       {second(op.CreateToken(ctx, "n", operatorapi.TokenCreate{TTLSeconds: 1 << 40})), "ttl_seconds"},
		"token of the past":   {second(op.CreateToken(ctx, "n", operatorapi.TokenCreate{TTLSeconds: -1})), "ttl_seconds"},
		"no such module":      {second(op.Assign(ctx, "n", operatorapi.AssignmentCreate{Module: "none"})), "there is no module"},
		"wrong architecture":  {second(op.Assign(ctx, "n", operatorapi.AssignmentCreate{Module: arm.Name})), "has no image for amd64"},
		"not assigned":        {second(op.Unassign(ctx, "n", "base")), "isn't assigned"},
		"show no module":      {second(op.Module(ctx, "none")), "there is no module"},
		"not pushed":          {register(func(r *operatorapi.ModuleRegister) { r.Digest = "sha256:" + strings.Repeat("0", 64) }), "the registry doesn't hold it"},
		"another repository":  {register(func(r *operatorapi.ModuleRegister) { r.Repository = "modules/other" }), "the registry doesn't hold it"},
		"foreign registry":    {register(func(r *operatorapi.ModuleRegister) { r.Repository = "registry.example:5000/modules/base" }), "want a path in this platform's registry"},
		"bad digest":          {register(func(r *operatorapi.ModuleRegister) { r.Digest = "latest" }), "want sha256:"},
		"bad variety":         {register(func(r *operatorapi.ModuleRegister) { r.Variety = "special" }), "want subscription, config or instance"},
		"bad priority":        {register(func(r *operatorapi.ModuleRegister) { r.Priority = 1000 }), "want 0 to 999"},
		"negative priority":   {register(func(r *operatorapi.ModuleRegister) { r.Priority = -1 }), "want 0 to 999"},
		"bad position":        {register(func(r *operatorapi.ModuleRegister) { r.CategoryPosition = &big }), "want 0 to 999"},
		"version taken":       {second(op.RegisterModule(ctx, other)), "registered with another digest"},
		"with the host named": {register(func(r *operatorapi.ModuleRegister) { r.Repository = p.Config.RegistryHost() + "/" + r.Repository }), ""},
	} {
		switch {
		case tc.want == "" && tc.err != nil:
			t.Errorf("%s: %v", name, tc.err)
		case tc.want != "" && (tc.err == nil || !strings.Contains(tc.err.Error(), tc.want) || fault.KindOf(tc.err) != fault.Refuse || fault.AreaOf(tc.err) != fault.Input):
			t.Errorf("%s: %v (%s, area %d), want %q", name, tc.err, fault.KindOf(tc.err), fault.AreaOf(tc.err), tc.want)
		}
	}
	// Mistyped fields and unknown paths are told.
	bearer := []string{"Authorization", "Bearer " + p.Config.Token.Reveal()}
	for request, want := range map[string]int{
		"POST " + operatorapi.PathNodes: 400, "PUT " + operatorapi.PathNodes: 405, "GET /api/v1/operator/none": 404, "GET /api/": 404, "DELETE " + operatorapi.PathModules: 405,
	} {
		method, path, _ := strings.Cut(request, " ")
		a := p.Do(nil, method, path, strings.NewReader(`{"nane":"x"}`), bearer...)
		if a.Status != want || a.Envelope.Error == "" || (want == 405) != (a.Header.Get("Allow") != "") {
			t.Errorf("%s: %d %s", request, a.Status, a.Body)
		}
	}
}

// TestModulesRefused pushes modules that aren't what they say, and registers them.
func TestModulesRefused(t *testing.T) {
	p := platformtest.Start(t)
	for name, tc := range brokenModules() {
		m := platformtest.Module{Name: "m", Version: "1.0", Files: map[string]string{"usr/x": "x"}}
		tc.change(&m)
		_, err := p.Operator.RegisterModule(t.Context(), p.Push(m))
		if err == nil || !strings.Contains(err.Error(), tc.want) || fault.AreaOf(err) != fault.Verify || fault.HintOf(err) == "" {
			t.Errorf("%s: %v (area %d, hint %q), want %q", name, err, fault.AreaOf(err), fault.HintOf(err), tc.want)
		}
	}
	list, err := p.Operator.Modules(t.Context())
	if err != nil || list.Count != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestClientFaults checks that the operator's client says which side to look at.
func TestClientFaults(t *testing.T) {
	p, other := platformtest.Start(t), platformtest.Start(t)
	try := func(change func(*operatorclient.Config)) error {
		t.Helper()
		config := p.Config
		change(&config)
		client, err := operatorclient.NewClient(config)
		if err != nil {
			return err
		}
		defer client.Close()
		_, err = client.Nodes(t.Context())
		return err
	}
	for name, tc := range map[string]struct {
		change func(*operatorclient.Config)
		kind   fault.Kind
		want   string
	}{
		"wrong token":   {func(c *operatorclient.Config) { c.Token = other.Config.Token }, fault.Refuse, "refuses the operator token"},
		"wrong CA":      {func(c *operatorclient.Config) { c.CAPEM = other.Config.CAPEM }, fault.Refuse, "isn't from the CA"},
		"nothing there": {func(c *operatorclient.Config) { c.URL = "https://127.0.0.1:1" }, fault.Retry, "reach the platform at https://127.0.0.1:1"},
		"plain HTTP":    {func(c *operatorclient.Config) { c.URL = strings.Replace(c.URL, "https", "http", 1) }, fault.Refuse, "only https is spoken"},
	} {
		err := try(tc.change)
		if err == nil || !strings.Contains(err.Error(), tc.want) || fault.KindOf(err) != tc.kind {
			t.Errorf("%s: %v (%s)", name, err, fault.KindOf(err))
		}
		if err != nil && strings.Contains(err.Error(), p.Config.Token.Reveal()) {
			t.Errorf("%s: the error shows the token", name)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Operator.Nodes(cancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func options(t *testing.T, dir string) platform.Options {
	t.Helper()
	return platform.Options{Dir: dir, Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler), Version: "v0"}
}

// TestOpen goes through what can be wrong with a data directory.
func TestOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	first, err := platform.Open(t.Context(), options(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	_, err = platform.Open(t.Context(), options(t, dir))
	if _, ok := errors.AsType[*durable.LockedError](err); !ok || fault.HintOf(err) == "" {
		t.Errorf("two on one directory: %v", err)
	}
	busy := options(t, filepath.Join(t.TempDir(), "c"))
	busy.Listen = first.Addr().String()
	if _, err := platform.Open(t.Context(), busy); err == nil || fault.HintOf(err) == "" {
		t.Errorf("a taken address: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	read := func() operatorclient.Config {
		t.Helper()
		config, err := operatorclient.LoadConfig(filepath.Join(dir, operatorapi.CredentialName))
		if err != nil {
			t.Fatal(err)
		}
		return config
	}
	before := read()

	// Another public URL goes into the credential file; the token stays, unless it is to be replaced.
	o := options(t, dir)
	if o.PublicURL, err = platform.ParsePublicURL("https://Platform.example:444/"); err != nil {
		t.Fatal(err)
	}
	reopen(t, o)
	if after := read(); after.URL != "https://platform.example:444" || !after.Token.Equal(before.Token) {
		t.Errorf("%+v", after)
	}
	o.ResetOperator = true
	reopen(t, o)
	if after := read(); after.Token.Equal(before.Token) {
		t.Error("the token wasn't replaced")
	}
	// A credential file that was taken away isn't made again.
	if err := os.Remove(filepath.Join(dir, operatorapi.CredentialName)); err != nil {
		t.Fatal(err)
	}
	reopen(t, options(t, dir))
	if _, err := os.Stat(filepath.Join(dir, operatorapi.CredentialName)); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}

	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := platform.Open(t.Context(), options(t, dir)); err == nil || !strings.Contains(err.Error(), "lets others") || fault.HintOf(err) == "" {
		t.Errorf("a directory for everyone: %v", err)
	}
}

func reopen(t *testing.T, o platform.Options) {
	t.Helper()
	s, err := platform.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestNames(t *testing.T) {
	for s, want := range map[string]string{
		"https://a:1": "https://a:1", "https://A.B/": "https://a.b", "https://[::1]:8443": "https://[::1]:8443",
		"http://a": "", "https://": "", "https://a/b": "", "https://u@a": "", "https://a?x": "", "a:1": "", "%": "", "https://:8443": "",
	} {
		u, err := platform.ParsePublicURL(s)
		if (err == nil) != (want != "") || err == nil && u.String() != want {
			t.Errorf("%q: %v, %v", s, u, err)
		}
	}
	for name, want := range map[string]bool{"a": true, "a.b-c": true, "127.0.0.1": true, "::1": true, "": false, "a..b": false, "-a": false, "a b": false, "*.a": false, strings.Repeat("a", 64): false} {
		if err := platform.CheckName(name); (err == nil) != want {
			t.Errorf("%q: %v", name, err)
		}
	}
}
