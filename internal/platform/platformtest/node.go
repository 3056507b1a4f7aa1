package platformtest

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"regexp"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/operatorapi"
)

// Node is an enrolled node.
type Node struct {
	ID   string
	Name string
	TLS  tls.Certificate
}

// Key makes an Ed25519 key.
func (p *Platform) Key() ed25519.PrivateKey {
	p.t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	return key
}

// CSR makes a certificate request for a key.
func (p *Platform) CSR(key crypto.Signer) string {
	p.t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "whoever"}}, key)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// Enroll creates a node of that name and architecture and enrolls it.
func (p *Platform) Enroll(name, architecture string) *Node {
	p.t.Helper()
	if _, err := p.Operator.CreateNode(p.t.Context(), operatorapi.NodeCreate{Name: name, Architecture: architecture}); err != nil {
		p.t.Fatal(err)
	}
	return p.EnrollAgain(name)
}

// EnrollAgain enrolls a node that is there already, with a new token and a new key.
func (p *Platform) EnrollAgain(name string) *Node {
	p.t.Helper()
	token, err := p.Operator.CreateToken(p.t.Context(), name, operatorapi.TokenCreate{})
	if err != nil {
		p.t.Fatal(err)
	}
	key := p.Key()
	var out nodeapi.EnrollResponse
	a := p.Do(nil, http.MethodPost, nodeapi.PathEnroll, nodeapi.EnrollRequest{BootstrapToken: token.Token, CSRPEM: p.CSR(key)})
	a.Into(&out)
	return &Node{ID: out.InstanceID, Name: name, TLS: p.Pair(out.CertPEM, key)}
}

// Refresh asks for the successor of the node's certificate for a key.
func (p *Platform) Refresh(node *Node, key crypto.Signer) Answer {
	p.t.Helper()
	return p.Do(node, http.MethodPost, nodeapi.PathRefresh, nodeapi.RefreshRequest{CSRPEM: p.CSR(key), AgentVersion: "v1"})
}

// Renew asks for a certificate for a key by the proof of the node's own, without presenting it.
func (p *Platform) Renew(node *Node, key crypto.Signer) Answer {
	p.t.Helper()
	return p.Do(nil, http.MethodPost, nodeapi.PathRenew, p.RenewRequest(node, key))
}

// RenewRequest returns what Renew sends.
func (p *Platform) RenewRequest(node *Node, key crypto.Signer) nodeapi.RenewRequest {
	p.t.Helper()
	csr := p.CSR(key)
	block, _ := pem.Decode([]byte(csr))
	signer, ok := node.TLS.PrivateKey.(crypto.Signer)
	if !ok {
		p.t.Fatalf("%T can't sign", node.TLS.PrivateKey)
	}
	at := p.Clock.Now().UTC().Format(time.RFC3339)
	// Ed25519 signs the message itself.
	proof, err := signer.Sign(rand.Reader, nodeapi.RenewMessage(at, block.Bytes), crypto.Hash(0))
	if err != nil {
		p.t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: node.TLS.Certificate[0]})
	return nodeapi.RenewRequest{CSRPEM: csr, CertificatePEM: string(certificate), SignedAt: at, Proof: proof, AgentVersion: "v1", DMIUUID: "dmi-1"}
}

// With returns the node with another certificate, that of an answer, and its key.
func (p *Platform) With(node *Node, certPEM string, key crypto.PrivateKey) *Node {
	p.t.Helper()
	return &Node{ID: node.ID, Name: node.Name, TLS: p.Pair(certPEM, key)}
}

// Pair joins a certificate and its key.
func (p *Platform) Pair(certPEM string, key crypto.PrivateKey) tls.Certificate {
	p.t.Helper()
	block, _ := pem.Decode([]byte(certPEM))
	if block == nil {
		p.t.Fatalf("no certificate in %q", certPEM)
	}
	return tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key}
}

// requestID is the one part of an error that differs each time.
var requestID = regexp.MustCompile(`"request_id":"[0-9a-f]{32}"`)

// Answer is what came back from the platform. In Body, each request has the ID "-": Envelope and Header have it as it was.
type Answer struct {
	Status   int
	Header   http.Header
	Body     []byte
	Envelope nodeapi.Envelope

	p *Platform
}

// Into decodes the data of an answer that must be a success.
func (a Answer) Into(v any) {
	a.p.t.Helper()
	if a.Status != http.StatusOK || !a.Envelope.Success {
		a.p.t.Fatalf("status %d: %s", a.Status, a.Body)
	}
	if err := json.Unmarshal(a.Envelope.Data, v); err != nil {
		a.p.t.Fatal(err)
	}
}

// Do makes a request, with node's certificate if node isn't nil. body is sent as JSON, except
// that an io.Reader is sent as it is, and nil not at all. headers are names and values in turn.
func (p *Platform) Do(node *Node, method, path string, body any, headers ...string) Answer {
	p.t.Helper()
	return p.DoBy(p.Client(node), method, path, body, headers...)
}

// DoBy is Do by a client.
func (p *Platform) DoBy(client *http.Client, method, path string, body any, headers ...string) Answer {
	p.t.Helper()
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case io.Reader:
		reader = b
	default:
		data, err := json.Marshal(b)
		if err != nil {
			p.t.Fatal(err)
		}
		reader = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.URL+path, reader)
	if err != nil {
		p.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	a := Answer{Status: resp.StatusCode, Header: resp.Header, p: p}
	if a.Body, err = io.ReadAll(resp.Body); err != nil {
		p.t.Fatal(err)
	}
	// What isn't an envelope leaves it empty.
	_ = json.Unmarshal(a.Body, &a.Envelope)
	a.Body = requestID.ReplaceAll(a.Body, []byte(`"request_id":"-"`))
	return a
}
