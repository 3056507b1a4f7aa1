package enroll

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
	"github.com/powernode/powernode-agent/internal/secret"
)

const (
	token    = "hXk2-Zz_9QpLm0aBcDeFgHiJkLmNoPqRsTuVwXyZ012"
	instance = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
)

// platform is a platform's enrollment: one token, one key, and the same certificate for the same
// key however often it asks.
type platform struct {
	*httptest.Server
	t  testing.TB
	ca *pkitest.CA
	// issuer signs the nodes' certificates; ca unless a test sets an intermediate.
	issuer *pkitest.CA

	mu       sync.Mutex
	grants   map[string]nodeapi.EnrollResponse // by token and key
	keys     map[string]string                 // by token
	requests []nodeapi.EnrollRequest
	// lose is how many replies get lost after the work is done, fail how many requests are answered
	// by 503 before it.
	lose, fail int
	// template and answer alter what is issued and what is said.
	template func(*x509.Certificate)
	answer   func(*nodeapi.EnrollResponse)
}

func newPlatform(t testing.TB) *platform {
	t.Helper()
	p := &platform{t: t, ca: pkitest.NewCA(t, "Powernode CA"), grants: map[string]nodeapi.EnrollResponse{}, keys: map[string]string{}}
	p.issuer = p.ca
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+nodeapi.PathEnroll, p.enroll)
	mux.HandleFunc("GET /who", func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) == 0 {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		reply(w, 200, map[string]any{"success": true, "data": r.TLS.PeerCertificates[0].Subject.CommonName})
	})
	p.Server = p.ca.Serve(p.ca.Web(), mux, nil)
	return p
}

// set changes what the platform does, also while a request that nobody waits for any more is under way.
func (p *platform) set(alter func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	alter()
}

func (p *platform) enroll(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var req nodeapi.EnrollRequest
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&req); err != nil {
		reply(w, 400, nodeapi.Envelope{Error: err.Error()})
		return
	}
	p.requests = append(p.requests, req)
	if p.fail > 0 {
		p.fail--
		reply(w, 503, nodeapi.Envelope{Error: "down for a moment", Code: nodeapi.CodeInternal})
		return
	}
	block, _ := pem.Decode([]byte(req.CSRPEM))
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		reply(w, 400, nodeapi.Envelope{Error: "csr_pem is no request", Code: nodeapi.CodeParameterMissing})
		return
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || csr.CheckSignature() != nil {
		reply(w, 422, nodeapi.Envelope{Error: "CSR failure", Code: nodeapi.CodeValidation})
		return
	}
	key := string(csr.PublicKey.(ed25519.PublicKey))
	if used, ok := p.keys[req.BootstrapToken]; len(req.BootstrapToken) < 16 || ok && used != key {
		reply(w, 422, nodeapi.Envelope{Error: "the token isn't good", Code: nodeapi.CodeTokenRefused})
		return
	}
	p.keys[req.BootstrapToken] = key
	grant, ok := p.grants[req.BootstrapToken]
	if !ok {
		grant = p.issue(csr)
		p.grants[req.BootstrapToken] = grant
	}
	if p.lose > 0 {
		p.lose--
		panic(http.ErrAbortHandler)
	}
	if p.answer != nil {
		p.answer(&grant)
	}
	reply(w, 200, map[string]any{"success": true, "data": grant})
}

func (p *platform) issue(csr *x509.CertificateRequest) nodeapi.EnrollResponse {
	tmpl := p.issuer.Node(instance)
	if p.template != nil {
		p.template(tmpl)
	}
	cert := p.issuer.Sign(tmpl, csr.PublicKey)
	chain := string(p.ca.PEM())
	if p.issuer != p.ca {
		chain = string(p.issuer.PEM()) + chain
	}
	return nodeapi.EnrollResponse{
		CertPEM: string(pkitest.EncodePEM(cert)), CAChainPEM: chain, InstanceID: instance,
		MTLSSubject: instance, NotAfter: cert.NotAfter, CertificateID: "c-1",
	}
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// bootstrap is what a node knows before it enrolls here.
func (p *platform) bootstrap() Bootstrap {
	return Bootstrap{PlatformURL: p.URL, CAPEM: p.ca.PEM(), Token: secret.New(token), InstanceID: instance}
}

// options enroll at p in dir, trying quickly and, unless a test says otherwise, once.
func (p *platform) options(dir string) Options {
	return Options{
		Dir: dir, Discover: func(context.Context) (Bootstrap, error) { return p.bootstrap(), nil },
		AgentVersion: "v1", Architecture: "amd64",
		Backoff: nodehttp.Backoff{Tries: 1, First: time.Millisecond, Max: 2 * time.Millisecond},
	}
}
