package signature

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/signing"
)

const testRepository = "registry.test:5000/modules/nginx"

// imageOf makes the manifest of a module.
func imageOf(name, version string) Subject {
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config":      map[string]any{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "sha256:" + strings.Repeat("a", 64), "size": 2},
		"layers":      []any{},
		"annotations": map[string]string{module.AnnotationName: name, module.AnnotationVersion: version, module.AnnotationSeal: strings.Repeat("b", 64)},
	})
	if err != nil {
		panic(err)
	}
	return Subject{Repository: testRepository, ManifestDigest: digestOf(manifest), Manifest: manifest, Name: name, Version: version}
}

func digestOf(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }

// signer is a signing key with its private half at hand, for signatures that package signing
// doesn't make.
type signer struct {
	*signing.Key
	private *ecdsa.PrivateKey
}

func newSigner(t testing.TB) signer {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fatal(t, err)
	key, err := signing.NewKey(private)
	fatal(t, err)
	return signer{key, private}
}

// sign signs any bytes.
func (s signer) sign(t testing.TB, data []byte) []byte {
	t.Helper()
	return signData(t, s.private, crypto.SHA256, data)
}

// signImage signs by key, in both forms: the Sigstore bundle first.
func signImage(t testing.TB, key signer, image Subject) []Bundle {
	t.Helper()
	s, err := signing.SignManifest(key.Key, signing.Image{Digest: image.ManifestDigest, Repository: image.Repository})
	fatal(t, err)
	return []Bundle{
		{MediaType: signing.BundleMediaType, Data: s.Bundle},
		{MediaType: signing.PayloadMediaType, Data: s.Payload, Annotations: map[string]string{signing.AnnotationSignature: s.Signature}},
	}
}

// publicPEM encodes any public key.
func publicPEM(t testing.TB, public crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	fatal(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// indent puts a PEM block into a YAML literal.
func indent(pemText string) string {
	return "|\n          " + strings.ReplaceAll(strings.TrimSpace(pemText), "\n", "\n          ") + "\n"
}

// keyPolicy is a policy with one rule: one key for every image of the test registry.
func keyPolicy(pemText string, more ...string) string {
	return "schema_version: 1\nrules:\n  - name: site\n    images: [\"registry.test:5000/modules/*\"]\n    keys:\n      - name: release\n        pem: " +
		indent(pemText) + strings.Join(more, "")
}

// keylessPolicy is a policy with one rule: the test identity.
const keylessPolicy = `schema_version: 1
rules:
  - name: site
    images: ["registry.test:5000/modules/*"]
    identities:
      - {issuer: "` + testIssuer + `", subject: "` + testSubject + `"}
    trusted_root: trusted_root.json
`

// verifierFor loads a policy whose directory may hold a trusted root.
func verifierFor(t testing.TB, policy string, trustedRoot []byte, options Options) *Verifier {
	t.Helper()
	p, err := LoadPolicy([]byte(policy), fstest.MapFS{"trusted_root.json": {Data: trustedRoot}})
	fatal(t, err)
	v, err := NewVerifier(p, options)
	fatal(t, err)
	return v
}

// wantRefused checks that a verification was refused by the check and in the words that are
// expected, with a hint.
func wantRefused(t *testing.T, account *Verified, err error, check CheckName, words string) {
	t.Helper()
	if err == nil {
		t.Fatalf("accepted: %+v", account)
	}
	if account != nil {
		t.Errorf("an account came with the error: %+v", account)
	}
	got, ok := FailedCheck(err)
	if !ok || got != check {
		t.Errorf("refused by %q, want %q: %v", got, check, err)
	}
	if !strings.Contains(err.Error(), words) {
		t.Errorf("error %q\nlacks %q", err, words)
	}
	if strings.ContainsAny(err.Error(), "\n\t") {
		t.Errorf("error has more than one line: %q", err)
	}
	if check.hint() == "" {
		t.Errorf("check %q has no hint", check)
	}
}

// statementFor is the statement that cosign signs, with one thing replaced.
func statementFor(digest string, replace ...string) []byte {
	text := `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"` + strings.TrimPrefix(digest, "sha256:") +
		`"}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`
	return []byte(strings.NewReplacer(replace...).Replace(text))
}

// payloadFor is the older form's document, with one thing replaced.
func payloadFor(image Subject, replace ...string) []byte {
	text := `{"critical":{"identity":{"docker-reference":"` + image.Repository + `"},"image":{"docker-manifest-digest":"` + image.ManifestDigest +
		`"},"type":"cosign container image signature"},"optional":null}`
	return []byte(strings.NewReplacer(replace...).Replace(text))
}

// signData signs with any key as the default algorithm of its kind does.
func signData(t testing.TB, key crypto.Signer, hash crypto.Hash, data []byte) []byte {
	t.Helper()
	if hash != 0 {
		h := hash.New()
		h.Write(data)
		data = h.Sum(nil)
	}
	sig, err := key.Sign(rand.Reader, data, hash)
	fatal(t, err)
	return sig
}

// dsseBundle wraps a statement and its signature by key.
func dsseBundle(hint string, statement, sig []byte) Bundle {
	return Bundle{MediaType: signing.BundleMediaType, Data: fmt.Appendf(nil,
		`{"mediaType":%q,"verificationMaterial":{"publicKey":{"hint":%q}},"dsseEnvelope":{"payload":%q,"payloadType":"application/vnd.in-toto+json","signatures":[{"sig":%q}]}}`,
		signing.BundleMediaType, hint, base64.StdEncoding.EncodeToString(statement), base64.StdEncoding.EncodeToString(sig))}
}

// messageBundle wraps a signature by key over plain bytes.
func messageBundle(hint string, data, sig []byte) Bundle {
	sum := sha256.Sum256(data)
	return Bundle{MediaType: signing.BundleMediaType, Data: fmt.Appendf(nil,
		`{"mediaType":%q,"verificationMaterial":{"publicKey":{"hint":%q}},"messageSignature":{"messageDigest":{"algorithm":"SHA2_256","digest":%q},"signature":%q}}`,
		signing.BundleMediaType, hint, base64.StdEncoding.EncodeToString(sum[:]), base64.StdEncoding.EncodeToString(sig))}
}

// withDigest384 gives a message bundle the digest that its key's algorithm takes.
func withDigest384(b Bundle, data []byte) []byte {
	was, is := sha256.Sum256(data), sha512.Sum384(data)
	return []byte(strings.NewReplacer(
		"SHA2_256", "SHA2_384",
		base64.StdEncoding.EncodeToString(was[:]), base64.StdEncoding.EncodeToString(is[:]),
	).Replace(string(b.Data)))
}

// silent is a logger for servers that tests don't want to hear.
func silent() *log.Logger { return log.New(io.Discard, "", 0) }
