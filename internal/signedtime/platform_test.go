package signedtime

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
)

const (
	day  = 24 * time.Hour
	year = 365 * day
)

// authority is a certificate authority whose key is at hand.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// newAuthority makes an authority of a new key, vouched for by another or, for nil, by itself. alter, if not
// nil, may change its certificate, which is valid from a year ago for ten.
func newAuthority(t testing.TB, name string, by *authority, alter func(*x509.Certificate)) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return newAuthorityOf(t, name, key, by, alter)
}

func newAuthorityOf(t testing.TB, name string, key crypto.Signer, by *authority, alter func(*x509.Certificate)) *authority {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-year), NotAfter: time.Now().Add(9 * year),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if alter != nil {
		alter(tmpl)
	}
	a := &authority{key: key}
	if by == nil {
		by = &authority{cert: tmpl, key: key}
	}
	a.cert = issue(t, tmpl, by, key.Public())
	return a
}

// vouch returns the certificate by which old vouches for a's key.
func (a *authority) vouch(t testing.TB, old *authority) *x509.Certificate {
	t.Helper()
	tmpl := *a.cert
	tmpl.AuthorityKeyId = nil
	return issue(t, &tmpl, old, a.key.Public())
}

func issue(t testing.TB, tmpl *x509.Certificate, by *authority, pub any) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, by.cert, pub, by.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// sign signs as platforms do.
func (a *authority) sign(t testing.TB, message []byte) []byte {
	t.Helper()
	opts := crypto.SignerOpts(crypto.Hash(0))
	if _, ok := a.key.Public().(ed25519.PublicKey); !ok {
		sum := sha256.Sum256(message)
		message, opts = sum[:], crypto.SHA256
	}
	signature, err := a.key.Sign(rand.Reader, message, opts)
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

// platform signs the time with an authority's key, as of a clock of its own.
type platform struct {
	*httptest.Server
	ca    *authority
	now   atomic.Pointer[func() time.Time]
	asked atomic.Int32
	// also are the certificates that follow the signer's.
	also []*x509.Certificate
	// spoil changes an answer, or writes its own and returns false.
	spoil func(w http.ResponseWriter, a *nodeapi.TimeResponse) bool
}

// newPlatform starts one whose server has a certificate of ca for web (nil for a valid one).
func newPlatform(t testing.TB, ca *authority, alter func(*x509.Certificate)) *platform {
	t.Helper()
	p := &platform{ca: ca}
	p.at(time.Now)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "platform"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * day),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if alter != nil {
		alter(tmpl)
	}
	leaf := issue(t, tmpl, ca, key.Public())
	clients := x509.NewCertPool()
	clients.AddCert(ca.cert)
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+nodeapi.PathTime, func(w http.ResponseWriter, r *http.Request) { p.answer(t, w, r) })
	p.Server = httptest.NewUnstartedServer(mux)
	p.Config.ErrorLog = log.New(io.Discard, "", 0)
	p.TLS = &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}},
		ClientCAs: clients, ClientAuth: tls.VerifyClientCertIfGiven,
	}
	p.StartTLS()
	t.Cleanup(p.Close)
	return p
}

// at sets the platform's clock.
func (p *platform) at(now func() time.Time) { p.now.Store(&now) }

func (p *platform) answer(t testing.TB, w http.ResponseWriter, r *http.Request) {
	p.asked.Add(1)
	var in nodeapi.TimeRequest
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<10)).Decode(&in); err != nil || len(in.Nonce) != 64 {
		t.Errorf("the question: %+v, %v", in, err)
	}
	a := respond(t, p.ca, in.Nonce, (*p.now.Load())(), p.also...)
	if p.spoil != nil && !p.spoil(w, &a) {
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"success": true, "data": a})
}

// someSum stands for the SHA-256 of a CA bundle.
var someSum = strings.Repeat("a", 64)

// respond returns the true answer of a platform.
func respond(t testing.TB, ca *authority, nonce string, now time.Time, also ...*x509.Certificate) nodeapi.TimeResponse {
	t.Helper()
	text := now.UTC().Format(time.RFC3339Nano)
	return nodeapi.TimeResponse{
		Nonce: nonce, ServerTime: text, CABundleSHA256: someSum, Signature: ca.sign(t, nodeapi.TimeMessage(nonce, text, someSum)),
		SignerPEM: string(bytes.Join([][]byte{pkitest.EncodePEM(ca.cert), pkitest.EncodePEM(also...)}, nil)),
	}
}

func (p *platform) material(cas ...*authority) *nodehttp.Material {
	m := &nodehttp.Material{PlatformURL: p.URL}
	for _, ca := range cas {
		m.CAs = append(m.CAs, ca.cert)
	}
	return m
}
