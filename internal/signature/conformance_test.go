package signature

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestConformanceVectors runs the bundle vectors of the sigstore-conformance suite, which isn't
// part of this repository: POWERNODE_SIGSTORE_CONFORMANCE names its test/assets/bundle-verify
// directory, and POWERNODE_SIGSTORE_ROOT the public instance's trusted_root.json, for the vectors
// that come without one.
func TestConformanceVectors(t *testing.T) {
	dir := os.Getenv("POWERNODE_SIGSTORE_CONFORMANCE")
	if dir == "" {
		t.Skip("POWERNODE_SIGSTORE_CONFORMANCE isn't set")
	}
	read := func(path ...string) []byte {
		text, err := os.ReadFile(filepath.Join(path...))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return text
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		ran++
		t.Run(entry.Name(), func(t *testing.T) {
			at := filepath.Join(dir, entry.Name())
			options := BlobOptions{
				Bundle: read(at, "bundle.sigstore.json"), Key: read(at, "key.pub"), TrustedRoot: read(at, "trusted_root.json"),
				CertificateIdentity:   "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main",
				CertificateOIDCIssuer: "https://token.actions.githubusercontent.com",
			}
			if text := read(at, "identity"); text != nil {
				options.CertificateIdentity = strings.TrimSpace(string(text))
			}
			if text := read(at, "issuer"); text != nil {
				options.CertificateOIDCIssuer = strings.TrimSpace(string(text))
			}
			switch {
			case options.Key != nil:
				options.CertificateIdentity, options.CertificateOIDCIssuer = "", ""
			case options.TrustedRoot == nil:
				options.TrustedRoot = read(os.Getenv("POWERNODE_SIGSTORE_ROOT"))
			}
			artifact := filepath.Join(at, "artifact")
			if _, err := os.Stat(artifact); err != nil {
				artifact = filepath.Join(dir, "a.txt")
			}
			content := read(artifact)
			for _, byDigest := range []bool{false, true} {
				options.Artifact, options.Digest = bytes.NewReader(content), ""
				if byDigest {
					options.Artifact, options.Digest = nil, fmt.Sprintf("sha256:%x", sha256.Sum256(content))
				}
				account, err := VerifyBlob(options)
				if bad := strings.HasSuffix(entry.Name(), "_fail"); bad != (err != nil) {
					t.Errorf("by digest %v: verified %v, %v", byDigest, account, err)
				} else if err != nil {
					t.Log(err)
				}
			}
		})
	}
	if ran == 0 {
		t.Fatalf("%s holds no vectors", dir)
	}
}
