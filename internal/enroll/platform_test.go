package enroll

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
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

// platform is a platform's part in the life of certificates: one token, one key, and the same certificate for the
// same key however often it asks.
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
	// lose is how many replies get lost after the work is done, fail and failCA how many requests for a token's
	// certificate and for the CAs are answered by 503 before it.
	lose, fail, failCA int
	// byKey are the certificates of rotations and renewals, refused what the platform says of a serial number, and
	// policy what it makes of renewals: RenewIssued, RenewWaiting or "" for no.
	byKey   map[string]nodeapi.EnrollResponse
	refused map[string]nodeapi.Code
	policy  nodeapi.RenewStatus
	asked   int      // rotations and renewals
	served  []string // the serial numbers of heartbeats that were taken
	// web is the server's chain, bundle what nodes are told to trust.
	web    *tls.Certificate
	bundle string
	// signer signs the time and what bundle is; lead leads to it from older CAs.
	signer *pkitest.CA
	lead   []*x509.Certificate
	// signed, if not "", is what is signed in place of bundle's SHA-256.
	signed string
	// now, if not nil, is what renewals' proofs are held against, and the time that is signed.
	now func() time.Time
	// taken, if not nil, is the only CA whose certificates don't end the handshake.
	taken *x509.Certificate
	// arrived, if not nil, hears of every request before anything is done about it: its path, and what certificate it
	// asks for, if any.
	arrived func(path string, csr *x509.CertificateRequest)
	// template and answer alter what is issued and what is said.
	template func(*x509.Certificate)
	answer   func(*nodeapi.EnrollResponse)
}

func newPlatform(t testing.TB) *platform {
	t.Helper()
	p := &platform{
		t: t, ca: pkitest.NewCA(t, "Powernode CA"), grants: map[string]nodeapi.EnrollResponse{}, keys: map[string]string{},
		byKey: map[string]nodeapi.EnrollResponse{}, refused: map[string]nodeapi.Code{},
	}
	p.issuer, p.signer, p.bundle, p.web = p.ca, p.ca, string(p.ca.PEM()), p.ca.Issue(p.ca.Web())
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+nodeapi.PathEnroll, p.enroll)
	mux.HandleFunc("POST "+nodeapi.PathRefresh, p.refresh)
	mux.HandleFunc("POST "+nodeapi.PathRenew, p.renew)
	mux.HandleFunc("POST "+nodeapi.PathHeartbeat, p.heartbeat)
	mux.HandleFunc("GET "+nodeapi.PathCA, func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.failCA > 0 {
			p.failCA--
			reply(w, 503, nodeapi.Envelope{Error: "down for a moment", Code: nodeapi.CodeInternal})
			return
		}
		ok(w, nodeapi.CAResponse{BundlePEM: p.bundle, BundleSHA256: bundleSum(p.bundle)})
	})
	mux.HandleFunc("POST "+nodeapi.PathTime, func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		signer, lead, now, sum := p.signer, p.lead, p.now, bundleSum(p.bundle)
		if p.signed != "" {
			sum = p.signed
		}
		p.mu.Unlock()
		signer.Tells(now, func() string { return sum }, lead...).ServeHTTP(w, r)
	})
	mux.HandleFunc("GET /who", func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) == 0 {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		ok(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	})
	p.Server = p.ca.Serve(p.ca.Web(), p.looked(mux), func(c *tls.Config) {
		// Whose certificate is good, the handlers say.
		c.ClientAuth = tls.RequestClientCert
		c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			c := &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{*p.web}}
			if p.taken != nil {
				c.ClientAuth, c.ClientCAs = tls.VerifyClientCertIfGiven, pool([]*x509.Certificate{p.taken})
			}
			return c, nil
		}
	})
	return p
}

// looked has arrived hear of a request before next does.
func (p *platform) looked(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err != nil {
			reply(w, 400, nodeapi.Envelope{Error: err.Error()})
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		p.set(func() {
			if p.arrived == nil {
				return
			}
			var asks struct {
				CSRPEM string `json:"csr_pem"`
			}
			_ = json.Unmarshal(body, &asks) // the time's request is none
			var csr *x509.CertificateRequest
			if block, _ := pem.Decode([]byte(asks.CSRPEM)); block != nil {
				csr, _ = x509.ParseCertificateRequest(block.Bytes)
			}
			p.arrived(r.URL.Path, csr)
		})
		next.ServeHTTP(w, r)
	})
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
	csr, key := p.request(w, req.CSRPEM)
	if csr == nil {
		return
	}
	if used, known := p.keys[req.BootstrapToken]; len(req.BootstrapToken) < 16 || known && used != key {
		reply(w, 422, nodeapi.Envelope{Error: "the token isn't good", Code: nodeapi.CodeTokenRefused})
		return
	}
	p.keys[req.BootstrapToken] = key
	grant, known := p.grants[req.BootstrapToken]
	if !known {
		grant = p.issue(csr)
		p.grants[req.BootstrapToken] = grant
	}
	p.losing()
	if p.answer != nil {
		p.answer(&grant)
	}
	ok(w, grant)
}

// losing loses the reply where a test asks for it.
func (p *platform) losing() {
	if p.lose > 0 {
		p.lose--
		panic(http.ErrAbortHandler)
	}
}

// request reads a certificate request; nil is answered already.
func (p *platform) request(w http.ResponseWriter, text string) (*x509.CertificateRequest, string) {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		reply(w, 400, nodeapi.Envelope{Error: "csr_pem is no request", Code: nodeapi.CodeParameterMissing})
		return nil, ""
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || csr.CheckSignature() != nil {
		reply(w, 422, nodeapi.Envelope{Error: "CSR failure", Code: nodeapi.CodeValidation})
		return nil, ""
	}
	return csr, string(csr.RawSubjectPublicKeyInfo)
}

// node returns the certificate that a request came with, if the platform takes it; nil is answered already.
func (p *platform) node(w http.ResponseWriter, r *http.Request) *x509.Certificate {
	if len(r.TLS.PeerCertificates) == 0 {
		reply(w, 401, nodeapi.Envelope{Error: "no certificate", Code: nodeapi.CodeUnauthorized})
		return nil
	}
	cert := r.TLS.PeerCertificates[0]
	if code, bad := p.refused[serialOf(cert)]; bad {
		reply(w, 401, nodeapi.Envelope{Error: "not this one", Code: code})
		return nil
	}
	return cert
}

func serialOf(c *x509.Certificate) string { return fmt.Sprintf("%X", c.SerialNumber) }

func (p *platform) heartbeat(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if cert := p.node(w, r); cert != nil {
		p.served = append(p.served, serialOf(cert))
		ok(w, nodeapi.HeartbeatResponse{Acknowledged: true})
	}
}

// successor answers with the certificate of a key, always the same, and tells of the CA.
func (p *platform) successor(csr *x509.CertificateRequest, key string) nodeapi.EnrollResponse {
	grant, known := p.byKey[key]
	if !known {
		grant = p.issue(csr)
		p.byKey[key] = grant
	}
	p.losing()
	if p.answer != nil {
		p.answer(&grant)
	}
	return grant
}

func (p *platform) refresh(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var req nodeapi.RefreshRequest
	if p.asked++; p.node(w, r) == nil || json.NewDecoder(r.Body).Decode(&req) != nil {
		return
	}
	if csr, key := p.request(w, req.CSRPEM); csr != nil {
		ok(w, p.successor(csr, key))
	}
}

func (p *platform) renew(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	var req nodeapi.RenewRequest
	if len(r.TLS.PeerCertificates) > 0 || json.NewDecoder(r.Body).Decode(&req) != nil {
		reply(w, 400, nodeapi.Envelope{Error: "not as agreed", Code: nodeapi.CodeValidation})
		return
	}
	certs, err := parseCertificates([]byte(req.CertificatePEM))
	csr, key := p.request(w, req.CSRPEM)
	if csr == nil {
		return
	}
	if err != nil || !proven(certs[0], nodeapi.RenewMessage(req.SignedAt, csr.Raw), req.Proof) {
		reply(w, 401, nodeapi.Envelope{Error: "no proof", Code: nodeapi.CodeUnauthorized})
		return
	}
	if at, err := time.Parse(time.RFC3339, req.SignedAt); err != nil || p.now != nil && p.now().Sub(at).Abs() > nodeapi.ProofTime {
		reply(w, 422, nodeapi.Envelope{Error: "signed at another time", Code: nodeapi.CodeProofOutOfTime})
		return
	}
	switch code, bad := p.refused[serialOf(certs[0])]; {
	case bad && code == nodeapi.CodeCertificateRevoked:
		reply(w, 401, nodeapi.Envelope{Error: "revoked", Code: code})
	case p.policy == nodeapi.RenewWaiting:
		ok(w, nodeapi.RenewResponse{Status: p.policy, PollAfterSeconds: 1, Message: "powernode node\napprove web-1"})
	case p.policy != nodeapi.RenewIssued:
		reply(w, 403, nodeapi.Envelope{Error: "the policy says never", Code: nodeapi.CodeRenewalRefused})
	default:
		grant := p.successor(csr, key)
		ok(w, nodeapi.RenewResponse{Status: p.policy, Certificate: &grant})
	}
}

// proven checks a signature by a certificate's key.
func proven(cert *x509.Certificate, message, signature []byte) bool {
	switch key := cert.PublicKey.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(key, message, signature)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(message)
		return ecdsa.VerifyASN1(key, sum[:], signature)
	}
	return false
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

func ok(w http.ResponseWriter, data any) {
	reply(w, 200, map[string]any{"success": true, "data": data})
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
