package platform_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// selfSigned makes a certificate of 127.0.0.1, and returns the file with it and its key.
func selfSigned(t *testing.T) string {
	t.Helper()
	key, der := newCertificate(t)
	pkcs, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "registry.pem")
	writeFile(t, path, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))+string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs})))
	return path
}

func newCertificate(t *testing.T) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return key, der
}

// tokenService is a registry's token service (Docker Registry v2 authentication, "Token Authentication Specification"): each of
// registryUsers gets what it asks for as far as it may have it, "builder" everything, others to pull.
type tokenService struct {
	*httptest.Server
	key  *ecdsa.PrivateKey
	der  []byte
	root string
	// asked counts the tokens.
	asked atomic.Int64
}

func newTokenService(t *testing.T) *tokenService {
	t.Helper()
	s := &tokenService{root: filepath.Join(t.TempDir(), "root.pem")}
	s.key, s.der = newCertificate(t)
	writeFile(t, s.root, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.der})))
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

// config is the part of the registry's configuration.
func (s *tokenService) config() string {
	return "auth: {token: {realm: " + s.URL + "/token, service: test, issuer: test, rootcertbundle: " + s.root + "}}\n"
}

func (s *tokenService) serve(w http.ResponseWriter, r *http.Request) {
	user, password, ok := r.BasicAuth()
	if ok && registryUsers[user] != password {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	type access struct {
		Type    string   `json:"type"`
		Name    string   `json:"name"`
		Actions []string `json:"actions"`
	}
	granted := []access{}
	for _, scope := range r.URL.Query()["scope"] {
		parts := strings.Split(scope, ":")
		if !ok || len(parts) != 3 {
			continue
		}
		a := access{Type: parts[0], Name: parts[1]}
		for _, action := range strings.Split(parts[2], ",") {
			if action == "pull" || user == "builder" {
				a.Actions = append(a.Actions, action)
			}
		}
		granted = append(granted, a)
	}
	now := time.Now().Unix()
	token := s.sign(map[string]any{
		"iss": "test", "sub": user, "aud": "test", "iat": now, "nbf": now - 5, "exp": now + 300, "jti": rand.Text(), "access": granted,
	})
	s.asked.Add(1)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": 300})
}

// sign makes a JSON web token (RFC 7519) with the certificate of its key in it.
func (s *tokenService) sign(claims map[string]any) string {
	encode := func(v any) string {
		text, _ := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(text)
	}
	text := encode(map[string]any{"typ": "JWT", "alg": "ES256", "x5c": []string{base64.StdEncoding.EncodeToString(s.der)}}) + "." + encode(claims)
	sum := sha256.Sum256([]byte(text))
	a, b, err := ecdsa.Sign(rand.Reader, s.key, sum[:])
	if err != nil {
		panic(err)
	}
	signature := make([]byte, 64)
	a.FillBytes(signature[:32])
	b.FillBytes(signature[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}
