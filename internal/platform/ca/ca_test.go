package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

func openDir(t *testing.T, path string, hook durable.Hook) *durable.Dir {
	t.Helper()
	dir, err := durable.OpenDir(path, hook)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

func newCA(t *testing.T) *CA {
	t.Helper()
	c, err := Open(openDir(t, t.TempDir(), nil), at(start))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func request(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "root"}, DNSNames: []string{"evil.example"},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func ed25519Key(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestOpenKeepsTheAuthority(t *testing.T) {
	path := t.TempDir()
	first, err := Open(openDir(t, path, nil), at(start))
	if err != nil {
		t.Fatal(err)
	}
	second, err := Open(openDir(t, path, nil), at(start.Add(time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.PEM(), second.PEM()) {
		t.Error("the second opening made another authority")
	}
	for name, perm := range map[string]os.FileMode{firstUnit: 0o600, bundleName: 0o644} {
		info, err := os.Stat(filepath.Join(path, name))
		if err != nil || info.Mode().Perm() != perm {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	public, err := os.ReadFile(filepath.Join(path, bundleName))
	if err != nil || bytes.Contains(public, []byte("PRIVATE")) || !bytes.Equal(public, first.PEM()) {
		t.Errorf("the public copy is %q, %v", public, err)
	}
	if a, b := newCA(t).view.Load().active.cert.Subject.CommonName, first.view.Load().active.cert.Subject.CommonName; a == b {
		t.Errorf("two authorities are both called %s", a)
	}
}

// TestOpenAfterAFailureAnywhere fails the making of an authority at every labelled operation:
// the next opening finds a whole one, or makes one.
func TestOpenAfterAFailureAnywhere(t *testing.T) {
	cut := errors.New("the power went")
	for n := 0; ; n++ {
		path := t.TempDir()
		left := n
		_, err := Open(openDir(t, path, func(string) error {
			if left--; left < 0 {
				return cut
			}
			return nil
		}), at(start))
		if err == nil {
			if n < 10 {
				t.Errorf("only %d labelled operations", n)
			}
			return
		}
		if !errors.Is(err, cut) {
			t.Fatalf("operation %d: %v", n, err)
		}
		before, _ := os.ReadFile(filepath.Join(path, firstUnit))
		c, err := Open(openDir(t, path, nil), at(start))
		if err != nil {
			t.Fatalf("after a cut at operation %d: %v", n, err)
		}
		if len(before) > 0 && !bytes.Contains(before, c.PEM()) {
			t.Errorf("after a cut at operation %d the authority on disk was replaced", n)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	other, err := os.ReadFile(func() string {
		path := t.TempDir()
		if _, err := Open(openDir(t, path, nil), at(start)); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(path, firstUnit)
	}())
	if err != nil {
		t.Fatal(err)
	}
	keyOf := func(unit []byte) []byte { b, _ := pem.Decode(unit); return pem.EncodeToMemory(b) }
	for name, tc := range map[string]struct {
		change func(t *testing.T, file string, unit []byte)
		when   time.Time
		want   string
	}{
		"empty":          {func(t *testing.T, file string, _ []byte) { write(t, file, nil) }, start, "want a private key and a certificate"},
		"half":           {func(t *testing.T, file string, unit []byte) { write(t, file, unit[:len(unit)/2]) }, start, "want a private key and a certificate"},
		"key of another": {func(t *testing.T, file string, unit []byte) { write(t, file, append(unit, keyOf(other)...)) }, start, "don't belong together"},
		"readable by others": {func(t *testing.T, file string, _ []byte) {
			if err := os.Chmod(file, 0o640); err != nil {
				t.Fatal(err)
			}
		}, start, "lets others read"},
		"expired":       {func(*testing.T, string, []byte) {}, start.Add(11 * 365 * 24 * time.Hour), "is valid from"},
		"not yet valid": {func(*testing.T, string, []byte) {}, start.Add(-time.Hour), "is valid from"},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			if _, err := Open(openDir(t, path, nil), at(start)); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(path, firstUnit)
			unit, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			tc.change(t, file, unit)
			before, _ := os.ReadFile(file)
			_, err = Open(openDir(t, path, nil), at(tc.when))
			if err == nil || !strings.Contains(err.Error(), tc.want) || fault.HintOf(err) == "" {
				t.Errorf("%v (hint %q), want %q", err, fault.HintOf(err), tc.want)
			}
			if after, _ := os.ReadFile(file); !bytes.Equal(before, after) {
				t.Error("a refused authority was overwritten")
			}
		})
	}
}

func write(t testing.TB, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestIssueNode(t *testing.T) {
	c := newCA(t)
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"ed25519": ed25519Key(t), "p256": p256} {
		req, err := ParseRequest(request(t, key))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		leaf, err := c.IssueNode("node-1", req, 0)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(leaf.PEM)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if cert.Subject.String() != "CN=node-1" || len(cert.DNSNames)+len(cert.IPAddresses)+len(cert.URIs) != 0 || cert.IsCA ||
			cert.KeyUsage != x509.KeyUsageDigitalSignature || len(cert.AuthorityKeyId) == 0 {
			t.Errorf("%s: %+v", name, cert)
		}
		if !cert.NotBefore.Equal(start.Add(-5*time.Minute)) || !cert.NotAfter.Equal(start.Add(90*24*time.Hour)) || !leaf.NotAfter.Equal(cert.NotAfter) {
			t.Errorf("%s: valid from %s to %s", name, cert.NotBefore, cert.NotAfter)
		}
		if leaf.Serial != Serial(cert) || len(leaf.Serial) != 32 || strings.ToUpper(leaf.Serial) != leaf.Serial {
			t.Errorf("%s: serial %s", name, leaf.Serial)
		}
		for usage, want := range map[x509.ExtKeyUsage]bool{x509.ExtKeyUsageClientAuth: true, x509.ExtKeyUsageServerAuth: false} {
			_, err := cert.Verify(x509.VerifyOptions{Roots: c.Pool(), CurrentTime: start, KeyUsages: []x509.ExtKeyUsage{usage}})
			if (err == nil) != want {
				t.Errorf("%s: usage %d: %v", name, usage, err)
			}
		}
	}
}

func TestIssueEndsWithTheAuthority(t *testing.T) {
	path := t.TempDir()
	if _, err := Open(openDir(t, path, nil), at(start)); err != nil {
		t.Fatal(err)
	}
	late := start.Add(authorityLife - time.Hour)
	c, err := Open(openDir(t, path, nil), at(late))
	if err != nil {
		t.Fatal(err)
	}
	req, err := ParseRequest(request(t, ed25519Key(t)))
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := c.IssueNode("n", req, 0)
	if err != nil || !leaf.NotAfter.Equal(c.NotAfter()) {
		t.Errorf("a certificate until %s from an authority until %s, %v", leaf.NotAfter, c.NotAfter(), err)
	}
}

func TestParseRequestRefuses(t *testing.T) {
	good := request(t, ed25519Key(t))
	block, _ := pem.Decode(good)
	forged := bytes.Clone(block.Bytes)
	forged[len(forged)-1] ^= 1
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		text []byte
		want string
	}{
		"empty":            {nil, "PEM block"},
		"another block":    {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes}), "PEM block"},
		"two blocks":       {append(bytes.Clone(good), good...), "something follows"},
		"not ASN.1":        {pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: []byte("x")}), "asn1"},
		"forged signature": {pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: forged}), "isn't signed by its own key"},
		"rsa":              {request(t, rsaKey), "RSA"},
		"p384":             {request(t, p384), "P-384"},
		"huge":             {bytes.Repeat([]byte("A"), MaxRequest+1), "longer than"},
	} {
		if _, err := ParseRequest(tc.text); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		req, err := ParseRequest(text)
		if err == nil && (req.Key == nil || req.KeyHash == [32]byte{}) {
			t.Error("accepted a request without a key")
		}
	})
}

func TestServerCertificate(t *testing.T) {
	now := start
	c, err := Open(openDir(t, t.TempDir(), nil), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.NewServerCertificate(nil); err == nil {
		t.Error("a certificate without a name")
	}
	s, err := c.NewServerCertificate([]string{"127.0.0.1", "::1", "platform.example"})
	if err != nil {
		t.Fatal(err)
	}
	serialNow := func() string {
		t.Helper()
		cert, err := s.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(cert.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]bool{"127.0.0.1": true, "::1": true, "platform.example": true, "other.example": false, "10.0.0.1": false} {
			_, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: c.Pool(), CurrentTime: now})
			if (err == nil) != want {
				t.Errorf("%s at %s: %v", name, now, err)
			}
		}
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: c.Pool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
			t.Error("the server's certificate serves as a node's")
		}
		return Serial(leaf)
	}
	first := serialNow()
	now = start.Add(19 * 24 * time.Hour)
	if serialNow() != first {
		t.Error("renewed before two thirds of its life")
	}
	now = start.Add(21 * 24 * time.Hour)
	if serialNow() == first {
		t.Error("not renewed after two thirds of its life")
	}
}

// TestHandshake lets the certificates meet over TLS 1.3.
func TestHandshake(t *testing.T) {
	c, err := Open(openDir(t, t.TempDir(), nil), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.NewServerCertificate([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	key := ed25519Key(t)
	req, err := ParseRequest(request(t, key))
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := c.IssueNode("node-1", req, 0)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(leaf.PEM)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	names := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			names <- err.Error()
			return
		}
		defer conn.Close()
		server := tls.Server(conn, &tls.Config{
			MinVersion: tls.VersionTLS13, GetCertificate: s.GetCertificate,
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: c.Pool(),
		})
		if err := server.Handshake(); err != nil {
			names <- err.Error()
			return
		}
		names <- server.ConnectionState().PeerCertificates[0].Subject.CommonName
	}()
	conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{
		RootCAs: c.Pool(), Certificates: []tls.Certificate{{Certificate: [][]byte{block.Bytes}, PrivateKey: key}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if name := <-names; name != "node-1" {
		t.Errorf("the server saw %q", name)
	}
}
