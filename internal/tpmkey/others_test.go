package tpmkey_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/oracle"
	"github.com/powernode/powernode-agent/internal/platform/ca"
	"github.com/powernode/powernode-agent/internal/tpmkey"
	"github.com/powernode/powernode-agent/internal/tpmkey/tpmtest"
)

func create(t *testing.T, device string) *tpmkey.Key {
	t.Helper()
	k, err := tpmkey.Create(t.Context(), device)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestThePlatformTakesItsRequest: what enrollment sends.
func TestThePlatformTakesItsRequest(t *testing.T) {
	k := create(t, tpmtest.New(t).Device)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "node"}}, k)
	if err != nil {
		t.Fatal(err)
	}
	r, err := ca.ParseRequest(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	if public, ok := r.Key.(*ecdsa.PublicKey); !ok || !public.Equal(k.Public()) {
		t.Error("the request is for another key")
	}
}

// TestHandshake has the key prove itself in TLS 1.3, to a server that asks for every scheme there is.
func TestHandshake(t *testing.T) {
	k := create(t, tpmtest.New(t).Device)
	_, authority, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serverPublic, serverKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := *root
	leaf.SerialNumber, leaf.IsCA, leaf.KeyUsage, leaf.DNSNames = big.NewInt(2), false, x509.KeyUsageDigitalSignature, []string{"platform.test"}
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	certify := func(template *x509.Certificate, public any) []byte {
		t.Helper()
		der, err := x509.CreateCertificate(rand.Reader, template, root, public, authority)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	rootCert, err := x509.ParseCertificate(certify(root, authority.Public()))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(rootCert)
	near, far := net.Pipe()
	server := tls.Server(far, &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
		Certificates: []tls.Certificate{{Certificate: [][]byte{certify(&leaf, serverPublic)}, PrivateKey: serverKey}},
	})
	client := tls.Client(near, &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: "platform.test",
		Certificates: []tls.Certificate{{Certificate: [][]byte{certify(&leaf, k.Public())}, PrivateKey: k, SupportedSignatureAlgorithms: k.Schemes()}},
	})
	done := make(chan error, 1)
	go func() {
		err := client.HandshakeContext(t.Context())
		if err == nil {
			_, err = client.Write([]byte("hello"))
		}
		done <- err
	}()
	hello := make([]byte, 5)
	if _, err := server.Read(hello); err != nil || string(hello) != "hello" {
		t.Fatalf("the server reads %q: %v", hello, err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if peers := server.ConnectionState().PeerCertificates; len(peers) != 1 || !k.Public().(*ecdsa.PublicKey).Equal(peers[0].PublicKey) {
		t.Error("the server saw another key")
	}
}

// TestOpenSSLSignsWithIt has OpenSSL's TPM provider, another program on another library, load the file
// and sign.
func TestOpenSSLSignsWithIt(t *testing.T) {
	openssl := oracle.Path(t, "openssl")
	tpm := tpmtest.New(t)
	env := []string{"PATH=" + os.Getenv("PATH"), "TPM2OPENSSL_TCTI=swtpm:path=" + tpm.Device}
	// The provider of Debian 12 asks for its TPM when it is loaded.
	list := exec.Command(openssl, "list", "-providers", "-provider", "tpm2")
	list.Env = env
	if out, err := list.CombinedOutput(); err != nil {
		oracle.Missing(t, "OpenSSL's TPM provider isn't installed; run scripts/setup tools: "+string(out))
	}
	k := create(t, tpm.Device)
	dir := t.TempDir()
	file, text := filepath.Join(dir, "key.pem"), []byte("what is signed")
	if err := os.WriteFile(file, k.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(openssl, "dgst", "-provider", "tpm2", "-provider", "default", "-propquery", "?provider=tpm2", "-sha256", "-sign", file, "-out", filepath.Join(dir, "signature"), "/dev/stdin")
	cmd.Env = env
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = in.Write(text)
		_ = in.Close()
	}()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	signature, err := os.ReadFile(filepath.Join(dir, "signature"))
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(text)
	if !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), digest[:], signature) {
		t.Error("what OpenSSL signed doesn't verify")
	}
}
