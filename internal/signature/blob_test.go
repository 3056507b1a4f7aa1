package signature

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fault"
)

func TestBlobIsVerified(t *testing.T) {
	key, in := newSigner(t), newInstance(t)
	data := bytes.Repeat([]byte("powernode"), 100_000)
	digest := digestOf(data)
	byKey := messageBundle(key.ID(), data, key.sign(t, data)).Data
	statement := statementFor(digest, "sigstore.dev/cosign/sign/v1", "slsa.dev/provenance/v1")
	trusted := in.trustedRoot(t)
	keyless := func(h how, content []byte, isStatement bool) BlobOptions {
		return BlobOptions{
			Bundle: attach(t, in.sign(t, h, content, isStatement)).Data, TrustedRoot: trusted,
			CertificateIdentity: testSubject, CertificateOIDCIssuer: testIssuer,
		}
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	fatal(t, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	fatal(t, err)
	for name, c := range map[string]struct {
		options  BlobOptions
		fileOnly bool
	}{
		"by key":                {BlobOptions{Bundle: byKey, Key: key.PublicPEM()}, false},
		"by key, P-384":         {BlobOptions{Bundle: withDigest384(messageBundle("", data, signData(t, p384, crypto.SHA384, data)), data), Key: []byte(publicPEM(t, p384.Public()))}, true},
		"by key, Ed25519":       {BlobOptions{Bundle: messageBundle("", data, signData(t, ed, 0, data)).Data, Key: []byte(publicPEM(t, ed.Public()))}, true},
		"statement by key":      {BlobOptions{Bundle: dsseBundle(key.ID(), statement, key.sign(t, pae(statement))).Data, Key: key.PublicPEM()}, false},
		"keyless":               {keyless(how{}, data, false), false},
		"keyless, P-384":        {keyless(how{curve: elliptic.P384()}, data, false), true},
		"keyless statement":     {keyless(how{}, statement, true), false},
		"keyless, with a stamp": {keyless(how{stamp: true}, data, false), false},
	} {
		t.Run(name, func(t *testing.T) {
			options := c.options
			options.Artifact = bytes.NewReader(data)
			account, err := VerifyBlob(options)
			fatal(t, err)
			if len(account.Checks) < len(keyChecks) || account.Signer() == "" || account.Rule != "" {
				t.Errorf("account %+v", account)
			}
			options.Artifact, options.Digest = nil, digest
			if _, err := VerifyBlob(options); (err != nil) != c.fileOnly {
				t.Errorf("by digest: %v", err)
			}
			options.Digest = digestOf([]byte("other"))
			if account, err := VerifyBlob(options); err == nil {
				t.Errorf("accepted another digest: %+v", account)
			}
			options.Artifact, options.Digest = bytes.NewReader(data[1:]), ""
			if account, err := VerifyBlob(options); err == nil {
				t.Errorf("accepted another file: %+v", account)
			}
		})
	}
}

func TestBlobIsRefused(t *testing.T) {
	key, foreign, in := newSigner(t), newSigner(t), newInstance(t)
	data := []byte("hello")
	bundle := messageBundle(key.ID(), data, key.sign(t, data)).Data
	trusted := in.trustedRoot(t)
	by := func(h how) []byte { return attach(t, in.sign(t, h, data, false)).Data }
	for name, c := range map[string]struct {
		options BlobOptions
		check   CheckName
		words   string
	}{
		"foreign key":     {BlobOptions{Bundle: messageBundle(foreign.ID(), data, foreign.sign(t, data)).Data, Key: key.PublicPEM()}, CheckSignature, "which the command doesn't name"},
		"changed file":    {BlobOptions{Bundle: bundle, Key: key.PublicPEM(), Artifact: strings.NewReader("hallo")}, CheckSignature, "has been changed"},
		"no log entry":    {BlobOptions{Bundle: bundle, Key: key.PublicPEM(), TrustedRoot: trusted}, CheckLog, "no entry"},
		"wrong identity":  {BlobOptions{Bundle: by(how{subject: "https://evil"}), TrustedRoot: trusted, CertificateIdentity: testSubject, CertificateOIDCIssuer: testIssuer}, CheckIdentity, "not one that is trusted"},
		"wrong issuer":    {BlobOptions{Bundle: by(how{issuer: "https://evil"}), TrustedRoot: trusted, CertificateIdentity: testSubject, CertificateOIDCIssuer: testIssuer}, CheckIdentity, "not one that is trusted"},
		"foreign root":    {BlobOptions{Bundle: by(how{}), TrustedRoot: newInstance(t).trustedRoot(t), CertificateIdentity: testSubject, CertificateOIDCIssuer: testIssuer}, CheckLog, "no entry"},
		"keyless for key": {BlobOptions{Bundle: by(how{}), Key: key.PublicPEM()}, CheckSignature, "accepts keys only"},
		"key for keyless": {BlobOptions{Bundle: bundle, TrustedRoot: trusted, CertificateIdentity: testSubject, CertificateOIDCIssuer: testIssuer}, CheckSignature, "accepts certified identities only"},
		"rubbish":         {BlobOptions{Bundle: []byte("{}"), Key: key.PublicPEM()}, CheckBundle, "the bundle is not one"},
		"too large":       {BlobOptions{Bundle: make([]byte, BundleMax+1), Key: key.PublicPEM()}, CheckBundle, "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.options.Artifact == nil {
				c.options.Artifact = bytes.NewReader(data)
			}
			account, err := VerifyBlob(c.options)
			wantRefused(t, account, err, c.check, c.words)
		})
	}
}

func TestBlobOptions(t *testing.T) {
	key, in := newSigner(t), newInstance(t)
	data := []byte("hello")
	file := func() io.Reader { return bytes.NewReader(data) }
	bundle := messageBundle(key.ID(), data, key.sign(t, data)).Data
	trusted := in.trustedRoot(t)
	for name, c := range map[string]struct {
		options BlobOptions
		words   string
	}{
		"no bundle":                      {BlobOptions{Key: key.PublicPEM(), Artifact: file()}, "no signature"},
		"nobody":                         {BlobOptions{Bundle: bundle, Artifact: file()}, "isn't said who"},
		"identity without issuer":        {BlobOptions{Bundle: bundle, CertificateIdentity: "x", TrustedRoot: trusted, Artifact: file()}, "isn't said who"},
		"issuer without identity":        {BlobOptions{Bundle: bundle, CertificateOIDCIssuer: "x", TrustedRoot: trusted, Artifact: file()}, "isn't said who"},
		"key and identity":               {BlobOptions{Bundle: bundle, Key: key.PublicPEM(), CertificateIdentity: "x", CertificateOIDCIssuer: "y", Artifact: file()}, "in two ways"},
		"identity without root":          {BlobOptions{Bundle: bundle, CertificateIdentity: "x", CertificateOIDCIssuer: "y", Artifact: file()}, "without a trusted root"},
		"identity with half a root":      {BlobOptions{Bundle: bundle, CertificateIdentity: "x", CertificateOIDCIssuer: "y", TrustedRoot: in.trustedRoot(t, "ct"), Artifact: file()}, "certificate transparency log"},
		"a root that isn't one":          {BlobOptions{Bundle: bundle, Key: key.PublicPEM(), TrustedRoot: []byte("{}"), Artifact: file()}, "trusted root"},
		"a key that isn't one":           {BlobOptions{Bundle: bundle, Key: []byte("x"), Artifact: file()}, "no PEM block"},
		"nothing to verify":              {BlobOptions{Bundle: bundle, Key: key.PublicPEM()}, "isn't said what"},
		"a file and a digest":            {BlobOptions{Bundle: bundle, Key: key.PublicPEM(), Artifact: file(), Digest: digestOf(data)}, "isn't said what"},
		"a digest of another kind":       {BlobOptions{Bundle: bundle, Key: key.PublicPEM(), Digest: "sha512:00"}, "not a digest"},
		"a digest that's too short":      {BlobOptions{Bundle: bundle, Key: key.PublicPEM(), Digest: "sha256:00"}, "not a digest"},
		"a private key for a public one": {BlobOptions{Bundle: bundle, Key: []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), Artifact: file()}, "private key"},
	} {
		t.Run(name, func(t *testing.T) {
			account, err := VerifyBlob(c.options)
			if err == nil || account != nil || !strings.Contains(err.Error(), c.words) {
				t.Fatalf("%v, %v; want %q", account, err, c.words)
			}
			if fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Input || fault.HintOf(err) == "" {
				t.Errorf("kind %v, area %v, hint %q", fault.KindOf(err), fault.AreaOf(err), fault.HintOf(err))
			}
		})
	}
}

// TestBlobReadError: a file that can't be read to its end isn't verified.
func TestBlobReadError(t *testing.T) {
	key := newSigner(t)
	data := []byte("hello")
	account, err := VerifyBlob(BlobOptions{
		Bundle: messageBundle(key.ID(), data, key.sign(t, data)).Data, Key: key.PublicPEM(),
		Artifact: io.MultiReader(bytes.NewReader(data), errReader{}),
	})
	if err == nil || !strings.Contains(err.Error(), "the disk is gone") {
		t.Fatalf("%+v, %v", account, err)
	}
	if check, verdict := FailedCheck(err); verdict {
		t.Errorf("a disk's error is taken for a verdict of the check %q", check)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("the disk is gone") }

func TestBoundedReader(t *testing.T) {
	for left, fits := range map[int64]bool{4: false, 5: true, 6: true} {
		for _, bounded := range []bool{true, false} {
			r := &blobReader{from: strings.NewReader("hello"), left: left, bounded: bounded}
			_, err := io.ReadAll(r)
			if ok := fits || !bounded; (err == nil) != ok || (r.err == nil) != ok || !ok && !errors.Is(err, errTooLarge) {
				t.Errorf("%d bytes left, bounded %v: %v", left, bounded, err)
			}
		}
	}
}
