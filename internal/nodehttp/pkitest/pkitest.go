// Package pkitest is a certificate authority for tests: real certificates over real TLS on
// loopback, valid or wrong in exactly the way a test asks for.
//
// It promises nothing to production code, which must not import it.
package pkitest

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// CA is a self-signed authority.
type CA struct {
	Cert *x509.Certificate
	key  ed25519.PrivateKey
	t    testing.TB
}

// NewCA makes an authority that has been valid for a year and will be for ten.
func NewCA(t testing.TB, name string) *CA {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-365 * 24 * time.Hour), NotAfter: time.Now().Add(3650 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	return &CA{Cert: create(t, tmpl, tmpl, pub, key), key: key, t: t}
}

// PEM returns the authority's certificate.
func (ca *CA) PEM() []byte { return EncodePEM(ca.Cert) }

// Node returns the template of a node's certificate for subject, valid from five minutes ago for
// 90 days, for a test to alter before Sign.
func (ca *CA) Node(subject string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: serial(ca.t), Subject: pkix.Name{CommonName: subject},
		NotBefore: time.Now().Add(-5 * time.Minute), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
}

// Sign issues tmpl for the public key pub.
func (ca *CA) Sign(tmpl *x509.Certificate, pub any) *x509.Certificate {
	ca.t.Helper()
	return create(ca.t, tmpl, ca.Cert, pub, ca.key)
}

// SignMessage signs a message with the authority's key, which is Ed25519.
func (ca *CA) SignMessage(message []byte) []byte { return ed25519.Sign(ca.key, message) }

// Issue makes a key and signs tmpl for it.
func (ca *CA) Issue(tmpl *x509.Certificate) *tls.Certificate {
	ca.t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		ca.t.Fatal(err)
	}
	leaf := ca.Sign(tmpl, pub)
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

// Intermediate makes an authority that ca has signed.
func (ca *CA) Intermediate(name string) *CA {
	ca.t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		ca.t.Fatal(err)
	}
	tmpl := *ca.Cert
	tmpl.SerialNumber, tmpl.Subject = serial(ca.t), pkix.Name{CommonName: name}
	tmpl.SubjectKeyId, tmpl.AuthorityKeyId, tmpl.RawSubject = nil, nil, nil
	return &CA{Cert: ca.Sign(&tmpl, pub), key: key, t: ca.t}
}

// Web returns the template of a server's certificate for 127.0.0.1, ::1 and localhost.
func (ca *CA) Web() *x509.Certificate {
	tmpl := ca.Node("platform")
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	tmpl.DNSNames = []string{"localhost"}
	tmpl.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	return tmpl
}

// Serve starts an HTTPS server on loopback with a certificate made from tmpl, which asks for, and
// verifies, a client certificate of the same authority but doesn't demand one. alter, if not nil,
// may change the TLS configuration before the server starts. The test's end stops it.
func (ca *CA) Serve(tmpl *x509.Certificate, h http.Handler, alter func(*tls.Config)) *httptest.Server {
	ca.t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.TLS = &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*ca.Issue(tmpl)},
		ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven,
	}
	if alter != nil {
		alter(srv.TLS)
	}
	srv.StartTLS()
	ca.t.Cleanup(srv.Close)
	return srv
}

// EncodePEM returns certs as one PEM bundle.
func EncodePEM(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

func create(t testing.TB, tmpl, parent *x509.Certificate, pub, key any) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		t.Fatal(err)
	}
	return n.Add(n, big.NewInt(1))
}
