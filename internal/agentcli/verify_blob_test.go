package agentcli

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/cli"
)

// TestVerifyBlob: `verify` with the flags of cosign verify-blob exits 0 only for a good signature,
// 2 for a verdict and 1 for a question that can't be answered, with one line of error.
func TestVerifyBlob(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	newKey := func() (*ecdsa.PrivateKey, []byte) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		return key, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	}
	key, public := newKey()
	_, foreign := newKey()
	data := []byte("hello\n")
	sum := sha256.Sum256(data)
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.StdEncoding.EncodeToString
	bundle := file("bundle", fmt.Appendf(nil, `{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":""}},
		"messageSignature":{"messageDigest":{"algorithm":"SHA2_256","digest":%q},"signature":%q}}`, encode(sum[:]), encode(sig)))
	good, other, pub := file("good", data), file("other", []byte("hallo\n")), file("key.pub", public)
	huge := file("huge", make([]byte, 8<<20))
	for _, c := range []struct {
		name  string
		args  []string
		code  int
		words string // on standard error; "" for none
	}{
		{"a file", []string{good, "--bundle", bundle, "--key", pub}, cli.ExitOK, ""},
		{"a digest", []string{fmt.Sprintf("sha256:%x", sum), "--bundle", bundle, "--key", pub}, cli.ExitOK, ""},
		{"another file", []string{other, "--bundle", bundle, "--key", pub}, cli.ExitVerify, "has been changed"},
		{"another digest", []string{"sha256:" + strings.Repeat("0", 64), "--bundle", bundle, "--key", pub}, cli.ExitVerify, "about something else"},
		{"a foreign key", []string{good, "--bundle", bundle, "--key", file("foreign.pub", foreign)}, cli.ExitVerify, "none of the keys"},
		{"no key", []string{good, "--bundle", bundle}, cli.ExitFailure, "isn't said who must have signed"},
		{"half an identity", []string{good, "--bundle", bundle, "--certificate-identity", "x"}, cli.ExitFailure, "isn't said who must have signed"},
		{"an identity without root", []string{good, "--bundle", bundle, "--certificate-identity", "x", "--certificate-oidc-issuer", "y"}, cli.ExitFailure, "--trusted-root"},
		{"key and identity", []string{good, "--bundle", bundle, "--key", pub, "--certificate-identity", "x"}, cli.ExitFailure, "none of the others can be"},
		{"key and issuer", []string{good, "--bundle", bundle, "--key", pub, "--certificate-oidc-issuer", "x"}, cli.ExitFailure, "in two ways"},
		{"a key without bundle", []string{good, "--key", pub}, cli.ExitFailure, "--bundle"},
		{"no such file", []string{filepath.Join(dir, "gone"), "--bundle", bundle, "--key", pub}, cli.ExitFailure, "no such file"},
		{"no such bundle", []string{good, "--bundle", filepath.Join(dir, "gone"), "--key", pub}, cli.ExitFailure, "no such file"},
		{"no such key", []string{good, "--bundle", bundle, "--key", filepath.Join(dir, "gone")}, cli.ExitFailure, "no such file"},
		{"a directory", []string{dir, "--bundle", bundle, "--key", pub}, cli.ExitFailure, "is a directory"},
		{"a bundle that isn't one", []string{good, "--bundle", good, "--key", pub}, cli.ExitVerify, "not one that can be verified"},
		{"a huge bundle", []string{good, "--bundle", huge, "--key", pub}, -1, "larger than"},
		{"a flag that isn't", []string{good, "--bundle", bundle, "--insecure-ignore-tlog"}, cli.ExitFailure, "unknown flag"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			app := &cli.App{In: strings.NewReader(""), Out: &out, Err: &errs, Getenv: func(string) string { return "" }, Format: cli.Table}
			code := app.Run(context.Background(), New(app), append([]string{"verify", "--output", "json"}, c.args...))
			if code != c.code && (c.code >= 0 || code == cli.ExitOK) {
				t.Errorf("exit code %d, want %d: %s", code, c.code, &errs)
			}
			if c.words == "" {
				var doc verifyDoc
				if err := json.Unmarshal(out.Bytes(), &doc); err != nil || len(doc.Checks) == 0 || doc.SignedBy == "" || errs.Len() > 0 {
					t.Errorf("printed %s (%v), %s", &out, err, &errs)
				}
				return
			}
			if out.Len() > 0 || !strings.Contains(errs.String(), c.words) {
				t.Errorf("printed %q and %q, want %q", &out, &errs, c.words)
			}
		})
	}
}
