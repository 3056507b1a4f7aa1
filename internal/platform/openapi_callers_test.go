package platform_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform"
	"github.com/powernode/powernode-agent/internal/platform/external"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// callers makes every call as who may not make it, as nobody in particular, and with bodies that are none.
func (d *described) callers() {
	d.t.Helper()
	d.on(platformtest.StartWith(d.t, platform.Options{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}))
	p := d.p
	node := p.Enroll("web-1", "amd64")
	d.args = map[string]string{"node": "web-1", "module": "x", "task": "x", "operator": "x", "code": "ABCDEFGH"}
	reads := done[operatorapi.OperatorToken](d, "createOperator", asked{body: operatorapi.OperatorCreate{Name: "reads", Role: operatorapi.RoleRead}})
	stranger := strings.ReplaceAll(url.QueryEscape(certificateOfNobody(d)), "+", "%20")
	barred := d.barred()
	d.each(func(op *operation) {
		d.refused(op.id, "400 VALIDATION_ERROR", asked{headers: map[string]string{"X-SSL-Client-Cert": "x"}})
		d.refused(op.id, "401 CERTIFICATE_EXPIRED", asked{headers: map[string]string{"X-SSL-Client-Cert": stranger}})
		switch op.caller {
		case "node":
			d.refused(op.id, "401 UNAUTHORIZED", asked{})
			for code, n := range barred {
				d.refused(op.id, "401 "+string(code), asked{node: n})
			}
		case "operator":
			d.refused(op.id, "401 UNAUTHORIZED", asked{headers: map[string]string{"Authorization": ""}})
			if slices.Contains(op.codes["403"], "FORBIDDEN") {
				d.refused(op.id, "403 FORBIDDEN", asked{headers: map[string]string{"Authorization": "Bearer " + reads.Token}})
			}
		}
		if op.maxBody > 0 {
			d.refused(op.id, "400 VALIDATION_ERROR", asked{node: node, body: "{"})
			d.refused(op.id, "413 TOO_LARGE", asked{node: node, body: strings.Repeat(" ", op.maxBody+1)})
			if _, got := d.call(op.id, asked{node: node, body: strings.Repeat(" ", op.maxBody)}); got != "400 VALIDATION_ERROR" {
				d.t.Errorf("%s: %s for as much as it takes", op.id, got)
			}
		}
	})
}

// barred returns nodes by the code that says why they aren't good any more.
func (d *described) barred() map[nodeapi.Code]*platformtest.Node {
	d.t.Helper()
	p := d.p
	revoked, superseded, expired, inactive := p.Enroll("revoked", "amd64"), p.Enroll("superseded", "amd64"), p.Enroll("expired", "amd64"), p.Enroll("inactive", "amd64")
	done[operatorapi.RevokeResult](d, "revokeNode", asked{args: map[string]string{"node": "revoked"}, body: operatorapi.RevokeRequest{}})
	key := p.Key()
	var out nodeapi.EnrollResponse
	p.Refresh(superseded, key).Into(&out)
	done[nodeapi.NodeConfig](d, "getConfig", asked{node: p.With(superseded, out.CertPEM, key)})
	execute(d.t, p, "UPDATE certificates SET not_after = ? WHERE node_id = ?", p.Clock.Now().Add(-time.Hour).UnixMilli(), expired.ID)
	execute(d.t, p, "UPDATE nodes SET state = 'terminated' WHERE id = ?", inactive.ID)
	return map[nodeapi.Code]*platformtest.Node{
		nodeapi.CodeCertificateRevoked: revoked, nodeapi.CodeCertificateSuperseded: superseded, nodeapi.CodeCertificateExpired: expired, nodeapi.CodeNodeInactive: inactive,
	}
}

// certificateOfNobody returns one that no authority of the platform has signed.
func certificateOfNobody(d *described) string {
	d.t.Helper()
	key := d.p.Key()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		d.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// elsewhere has a platform whose modules are in another registry, which knows passwords only.
func (d *described) elsewhere() {
	d.t.Helper()
	// The registry is another platform's own, behind passwords.
	own := platformtest.Start(d.t)
	pushed := own.Push(platformtest.Module{Name: "base", Version: "1", Files: map[string]string{"etc/motd": "base"}})
	to, err := url.Parse(own.URL)
	if err != nil {
		d.t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Transport: own.Client(nil).Transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Header.Set("Authorization", "Bearer "+own.Config.Token.Reveal())
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != "reads" {
			w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	d.t.Cleanup(server.Close)
	at, err := external.ParseURL(server.URL)
	if err != nil {
		d.t.Fatal(err)
	}
	file := filepath.Join(d.t.TempDir(), "credentials.json")
	d.write(file, `{"username": "platform", "password": "reads"}`)
	d.on(platformtest.StartWith(d.t, platform.Options{Registry: at, RegistryCredentials: file}))
	done[operatorapi.Module](d, "registerModule", asked{body: pushed})
	node := d.p.Enroll("web-1", "amd64")
	d.args["node"] = "web-1"
	done[operatorapi.AssignmentList](d, "assignModule", asked{body: operatorapi.AssignmentCreate{Module: "base"}})
	modules := done[nodeapi.ModuleList](d, "getModules", asked{node: node})
	query := "?repository=" + url.QueryEscape(modules.Modules[0].Repository)
	d.refused("getRegistryAccess", "422 VALIDATION_ERROR", asked{node: node, query: query})
	d.write(file, `{"username": "platform", "password": "reads", "nodes": {"username": "nodes", "password": "reads"}}`)
	if access := done[nodeapi.RegistryAccess](d, "getRegistryAccess", asked{node: node, query: query}); access.Username != "nodes" {
		d.t.Errorf("%+v", access)
	}
	d.refused("getRegistryAccess", "404 NOT_FOUND", asked{node: node, query: query + "x"})
	d.refused("getRegistryAccess", "400 PARAMETER_MISSING", asked{node: node})
}

func (d *described) write(file, text string) {
	d.t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// crowds makes calls too often.
func (d *described) crowds() {
	d.t.Helper()
	d.on(platformtest.StartWith(d.t, platform.Options{HeartbeatsAtOnce: 1}))
	node := d.p.Enroll("web-1", "amd64")
	resume := d.p.Clock.Stop()
	for _, id := range []string{"enroll", "renewCertificate", "signedTime", "claim", "getCABundle"} {
		body := emptyBody(d.operations[id])
		for range 5000 {
			if _, got := d.call(id, asked{body: body}); strings.HasPrefix(got, "429 ") {
				break
			}
		}
		d.refused(id, "429 TOO_MANY_REQUESTS", asked{body: body})
	}
	// One bound is for both of these.
	for range 5000 {
		if _, got := d.call("getOpenAPI", asked{}); strings.HasPrefix(got, "429 ") {
			break
		}
	}
	// Wrong tokens; one that was good before stays so.
	d.args = map[string]string{"node": "web-1", "module": "x", "task": "x", "operator": "x", "code": "ABCDEFGH"}
	wrong := asked{headers: map[string]string{"Authorization": "Bearer wrong"}}
	d.each(func(op *operation) {
		if op.caller != "operator" {
			return
		}
		got := ""
		for range 100 {
			if _, got = d.call(op.id, wrong); got != "401 UNAUTHORIZED" {
				break
			}
		}
		if got != "429 TOO_MANY_REQUESTS" {
			d.t.Errorf("%s with too many wrong tokens: %s", op.id, got)
		}
	})
	resume()
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for a := (platformtest.Answer{Status: http.StatusTooManyRequests}); a.Status == http.StatusTooManyRequests; { // the place is another call's for the moment
				a = d.p.Do(node, http.MethodPost, nodeapi.PathTaskLease, nodeapi.LeaseRequest{WaitSeconds: 50})
			}
		})
	}
	got := ""
	for range 5000 {
		if _, got = d.call("leaseTasks", asked{node: node, body: nodeapi.LeaseRequest{}}); got != "200" {
			break
		}
	}
	if got != "429 TOO_MANY_REQUESTS" {
		d.t.Errorf("with too many calls for tasks: %s", got)
	}
	_, release := crowded(d.t, d.p, node, 1)
	d.refused("heartbeat", "429 TOO_MANY_REQUESTS", asked{node: node, body: pulse()})
	release()
	many := d.p.Enroll("web-2", "amd64")
	release = busy(d.t, d.p, many)
	d.each(func(op *operation) {
		if op.caller == "node" {
			d.refused(op.id, "429 TOO_MANY_REQUESTS", asked{node: many, body: emptyBody(op)})
		}
	})
	release()
	d.p.Stop()
	wait.Wait()
}

// emptyBody is a body that is enough for a call that comes to nothing.
func emptyBody(op *operation) any {
	if op.maxBody > 0 {
		return "{}"
	}
	return nil
}

// trouble makes every call that needs the database while what it needs first isn't there.
func (d *described) trouble() {
	d.t.Helper()
	d.on(platformtest.Start(d.t))
	p := d.p
	d.args = map[string]string{"node": "web-1", "module": "x", "task": "x", "operator": "x", "code": "ABCDEFGH"}
	node := p.Enroll("web-1", "amd64")
	bodies := map[string]any{
		"enroll":           nodeapi.EnrollRequest{BootstrapToken: "x", CSRPEM: p.CSR(p.Key())},
		"renewCertificate": p.RenewRequest(node, p.Key()),
		"claim":            machine("a"),
	}
	driver, source := "sqlite", p.Dir+"/platform.db?_pragma=busy_timeout(10000)"
	if p.Database() != nil {
		driver, source = "pgx", p.Database().URL()
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		d.t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // what it did is done
	for _, table := range []string{"certificates", "operator", "operator_tokens", "tokens", "claims"} {
		if _, err := db.ExecContext(d.t.Context(), "ALTER TABLE "+table+" RENAME TO lost_"+table); err != nil {
			d.t.Fatal(err)
		}
	}
	d.each(func(op *operation) {
		if slices.Contains(op.codes["5XX"], "INTERNAL_ERROR") {
			d.refused(op.id, "5XX INTERNAL_ERROR", asked{node: node, body: bodies[op.id]})
		}
	})
}
