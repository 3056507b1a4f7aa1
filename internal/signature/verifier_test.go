package signature

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/signing"
)

func TestNoVerifierWithoutPolicy(t *testing.T) {
	for _, p := range []*Policy{nil, {}} {
		if v, err := NewVerifier(p, Options{}); err == nil || v != nil {
			t.Errorf("NewVerifier(%v) = %v, %v", p, v, err)
		}
	}
}

func TestKeyedImageIsVerified(t *testing.T) {
	key := newSigner(t)
	v := verifierFor(t, keyPolicy(string(key.PublicPEM())), nil, Options{})
	image := imageOf("nginx", "1.28.0")
	both := signImage(t, key, image)
	for name, bundles := range map[string][]Bundle{
		"Sigstore bundle":              both[:1],
		"older form":                   both[1:],
		"after one of a foreign key":   append(signImage(t, newSigner(t), image), both[0]),
		"after rubbish":                {{MediaType: "text/plain"}, {MediaType: signing.BundleMediaType, Data: []byte("{}")}, both[1]},
		"message over the manifest":    {messageBundle(key.ID(), image.Manifest, key.sign(t, image.Manifest))},
		"bundle without the key's ID":  {dsseBundle("", statementFor(image.ManifestDigest), key.sign(t, pae(statementFor(image.ManifestDigest))))},
		"bundle with another key's ID": {dsseBundle("x", statementFor(image.ManifestDigest), key.sign(t, pae(statementFor(image.ManifestDigest))))},
	} {
		t.Run(name, func(t *testing.T) {
			account, err := v.VerifyManifest(image, bundles)
			fatal(t, err)
			if account.KeyID != key.ID() || account.KeyName != "release" || account.Rule != "site" || account.Subject != "" || !account.SignedAt.IsZero() {
				t.Errorf("account %+v", account)
			}
			for _, name := range slices.Concat(keyChecks, manifestChecks) {
				if !slices.ContainsFunc(account.Checks, func(c Check) bool { return c.Name == name && c.Detail != "" }) {
					t.Errorf("check %q isn't in the account: %v", name, account.Checks)
				}
			}
		})
	}
}

func TestKeyedImageIsRefused(t *testing.T) {
	key, foreign := newSigner(t), newSigner(t)
	v := verifierFor(t, keyPolicy(string(key.PublicPEM())), nil, Options{})
	image, other := imageOf("nginx", "1.28.0"), imageOf("postgres", "17.0")
	good := signImage(t, key, image)
	statement := func(replace ...string) Bundle {
		text := statementFor(image.ManifestDigest, replace...)
		return dsseBundle(key.ID(), text, key.sign(t, pae(text)))
	}
	claim := func(replace ...string) Bundle {
		text := payloadFor(image, replace...)
		return Bundle{MediaType: MediaTypePayload, Data: text, Annotations: map[string]string{
			annotationSignature: base64.StdEncoding.EncodeToString(key.sign(t, text)),
		}}
	}
	withSubject := func(change func(*Subject)) Subject { s := image; change(&s); return s }
	noModule := imageOf("nginx", "1.28.0")
	noModule.Manifest = []byte(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","annotations":{"org.opencontainers.image.version":"1.28.0"}}`)
	noModule.ManifestDigest = digestOf(noModule.Manifest)
	noVersion := imageOf("nginx", "1.28.0")
	noVersion.Manifest = []byte(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","annotations":{"io.powernode.module.name":"nginx"}}`)
	noVersion.ManifestDigest = digestOf(noVersion.Manifest)
	index := imageOf("nginx", "1.28.0")
	index.Manifest = []byte(`{"mediaType":"application/vnd.oci.image.index.v1+json"}`)
	index.ManifestDigest = digestOf(index.Manifest)
	artifactType := imageOf("nginx", "1.28.0")
	artifactType.Manifest = []byte(strings.Replace(string(artifactType.Manifest), "image.manifest.v1", "artifact.manifest.v1", 1))
	artifactType.ManifestDigest = digestOf(artifactType.Manifest)
	for _, c := range []struct {
		name    string
		subject Subject
		bundles []Bundle
		check   CheckName
		words   string
	}{
		{"unsigned", image, nil, CheckBundle, "it is not signed"},
		{"foreign key", image, signImage(t, foreign, image)[:1], CheckSignature, "which rule site doesn't name"},
		{"foreign key, older form", image, signImage(t, foreign, image)[1:], CheckSignature, "with none of the keys of rule site"},
		{"foreign key under a trusted name", image, []Bundle{dsseBundle(key.ID(), statementFor(image.ManifestDigest), foreign.sign(t, pae(statementFor(image.ManifestDigest))))}, CheckSignature, "names key release, but doesn't verify"},
		{"changed signature", image, []Bundle{dsseBundle(key.ID(), statementFor(image.ManifestDigest), key.sign(t, []byte("x")))}, CheckSignature, "has been changed"},
		{"changed signature, older form", image, []Bundle{{MediaType: MediaTypePayload, Data: payloadFor(image), Annotations: map[string]string{annotationSignature: base64.StdEncoding.EncodeToString(key.sign(t, []byte("x")))}}}, CheckSignature, "has been changed"},
		{"signature of another image", image, signImage(t, key, other)[:1], CheckSubject, "about another image"},
		{"signature of another image, older form", image, signImage(t, key, other)[1:], CheckSubject, "about another image"},
		{"signature of other bytes", image, []Bundle{messageBundle(key.ID(), other.Manifest, key.sign(t, other.Manifest))}, CheckSubject, "about other bytes"},
		{"message that lies about its digest", image, []Bundle{messageBundle(key.ID(), image.Manifest, key.sign(t, other.Manifest))}, CheckSignature, "has been changed"},
		{"an attestation", image, []Bundle{statement("https://sigstore.dev/cosign/sign/v1", "https://slsa.dev/provenance/v1")}, CheckSubject, "an attestation"},
		{"a statement of another type", image, []Bundle{statement("https://in-toto.io/Statement/v1", "https://in-toto.io/Link/v1")}, CheckSubject, "its type is"},
		{"a statement about two images", image, []Bundle{statement(`"subject":[`, `"subject":[{"digest":{"sha256":"`+strings.Repeat("0", 64)+`"}},`)}, CheckSubject, "exactly one subject"},
		{"a statement with two digests", image, []Bundle{statement(`{"sha256":`, `{"sha512":"00","sha256":`)}, CheckSubject, "exactly one subject"},
		{"a statement that says a thing twice", image, []Bundle{statement(`"predicate":{}`, `"predicate":{},"Subject":[]`)}, CheckSubject, "stands twice"},
		{"a claim of another type", image, []Bundle{claim("cosign container image signature", "atomic container signature")}, CheckBundle, "critical.type"},
		{"a claim with more that is critical", image, []Bundle{claim(`"type":`, `"until":"2020","type":`)}, CheckBundle, "unknown field"},
		{"a claim of another repository", image, []Bundle{claim(testRepository, "registry.evil/modules/nginx")}, CheckReference, "which rule site doesn't cover"},
		{"a claim of no repository", image, []Bundle{claim(testRepository, "")}, CheckReference, "which rule site doesn't cover"},
		{"a claim without signature", image, []Bundle{{MediaType: MediaTypePayload, Data: payloadFor(image)}}, CheckBundle, "not a signature in base64"},
		{"a repository that no rule covers", withSubject(func(s *Subject) { s.Repository = "registry.test:5000/modules/deeper/nginx" }), good, CheckPolicy, "no rule of the trust policy covers"},
		{"a repository that isn't one", withSubject(func(s *Subject) { s.Repository = "registry.test:5000/modules/*" }), good, CheckPolicy, "not valid"},
		{"a tag in the repository", withSubject(func(s *Subject) { s.Repository = testRepository + ":v1" }), good, CheckPolicy, "tag or a digest"},
		{"other bytes than the digest's", withSubject(func(s *Subject) { s.Manifest = append(slices.Clone(s.Manifest), ' ') }), good, CheckDigest, "bytes have the digest"},
		{"a digest that isn't one", withSubject(func(s *Subject) { s.ManifestDigest = "sha512:00" }), good, CheckDigest, "not a digest of the form"},
		{"a digest in upper case", withSubject(func(s *Subject) { s.ManifestDigest = "sha256:" + strings.ToUpper(s.ManifestDigest[7:]) }), good, CheckDigest, "not a digest of the form"},
		{"a huge manifest", withSubject(func(s *Subject) {
			s.Manifest = make([]byte, ManifestMax+1)
			s.ManifestDigest = digestOf(s.Manifest)
		}), good, CheckDigest, "larger than"},
		{"replayed under another name", withSubject(func(s *Subject) { s.Name = "system-base" }), good, CheckModule, "validly signed, but as module nginx 1.28.0"},
		{"replayed as another version", withSubject(func(s *Subject) { s.Version = "1.29.0" }), good, CheckModule, "validly signed, but as module nginx 1.28.0"},
		{"no name asked for", withSubject(func(s *Subject) { s.Name = "" }), good, CheckModule, "not named validly"},
		{"no version asked for", withSubject(func(s *Subject) { s.Version = "" }), good, CheckModule, "not named validly"},
		{"signed, but not a module", noModule, signImage(t, key, noModule), CheckModule, "not as a module: annotation io.powernode.module.name"},
		{"signed, without a version", noVersion, signImage(t, key, noVersion), CheckModule, "not as a module: annotation org.opencontainers.image.version"},
		{"signed, but an index", index, signImage(t, key, index), CheckModule, "index of several images"},
		{"signed, but of another type", artifactType, signImage(t, key, artifactType), CheckModule, "not that of an image manifest"},
		{"too many signatures", image, slices.Repeat(good, BundlesMax), CheckBundle, "at most 256"},
		{"a huge bundle", image, []Bundle{{MediaType: signing.BundleMediaType, Data: make([]byte, BundleMax+1)}}, CheckBundle, "larger than"},
		{"a huge annotation", image, []Bundle{{MediaType: MediaTypePayload, Data: payloadFor(image), Annotations: map[string]string{annotationSignature: strings.Repeat("A", BundleMax+1)}}}, CheckBundle, "larger than"},
		{"an unknown kind of bundle", image, []Bundle{{MediaType: "application/spdx+json", Data: []byte("{}")}}, CheckBundle, "isn't known"},
		{"cosign's own older bundle", image, []Bundle{{MediaType: signing.BundleMediaType, Data: []byte(`{"base64Signature":"","cert":""}`)}}, CheckBundle, "older format"},
		{"two that fail", image, append(signImage(t, foreign, image)[:1], Bundle{MediaType: "text/plain"}), CheckSignature, "none of its 2 signatures is good; 1: it was made with the key"},
		{"many that fail", image, slices.Repeat(signImage(t, foreign, image), 5), CheckSignature, "and 6 more"},
	} {
		t.Run(c.name, func(t *testing.T) {
			account, err := v.VerifyManifest(c.subject, c.bundles)
			wantRefused(t, account, err, c.check, c.words)
			if fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Verify || fault.HintOf(err) == "" {
				t.Errorf("kind %v, area %v, hint %q", fault.KindOf(err), fault.AreaOf(err), fault.HintOf(err))
			}
		})
	}
}

// TestSentencesDiffer: a person can tell from the sentence alone what went wrong.
func TestSentencesDiffer(t *testing.T) {
	key, foreign := newSigner(t), newSigner(t)
	v := verifierFor(t, keyPolicy(string(key.PublicPEM())), nil, Options{})
	image := imageOf("nginx", "1.28.0")
	renamed := image
	renamed.Name = "system-base"
	changed := image
	changed.Manifest = []byte("{}")
	seen := map[string]string{}
	for name, try := range map[string]func() error{
		"unsigned":     func() error { _, err := v.VerifyManifest(image, nil); return err },
		"foreign":      func() error { _, err := v.VerifyManifest(image, signImage(t, foreign, image)[:1]); return err },
		"replayed":     func() error { _, err := v.VerifyManifest(renamed, signImage(t, key, image)); return err },
		"changed":      func() error { _, err := v.VerifyManifest(changed, signImage(t, key, image)); return err },
		"other image":  func() error { _, err := v.VerifyManifest(image, signImage(t, key, imageOf("a", "1"))[:1]); return err },
		"not verified": func() error { return errors.New("") },
	} {
		text := try().Error()
		_, verdict, _ := strings.Cut(text, "): ")
		if other, ok := seen[verdict]; ok {
			t.Errorf("%s and %s read alike: %s", name, other, verdict)
		}
		seen[verdict] = name
	}
}

// TestKindsOfKeys verifies one signature by each kind of key that a policy may hold.
func TestKindsOfKeys(t *testing.T) {
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fatal(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	fatal(t, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	fatal(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	fatal(t, err)
	image := imageOf("nginx", "1.28.0")
	for name, c := range map[string]struct {
		key  crypto.Signer
		hash crypto.Hash
	}{
		"P-256": {p256, crypto.SHA256}, "P-384": {p384, crypto.SHA384}, "Ed25519": {ed, 0}, "RSA": {rsaKey, crypto.SHA256},
	} {
		t.Run(name, func(t *testing.T) {
			v := verifierFor(t, keyPolicy(publicPEM(t, c.key.Public())), nil, Options{})
			statement, claim := statementFor(image.ManifestDigest), payloadFor(image)
			for form, b := range map[string]Bundle{
				"statement": dsseBundle("", statement, signData(t, c.key, c.hash, pae(statement))),
				"claim": {MediaType: MediaTypePayload, Data: claim, Annotations: map[string]string{
					annotationSignature: base64.StdEncoding.EncodeToString(signData(t, c.key, c.hash, claim)),
				}},
			} {
				if _, err := v.VerifyManifest(image, []Bundle{b}); err != nil {
					t.Errorf("%s: %v", form, err)
				}
				// The same signature over anything else must fail.
				wrong := dsseBundle("", statement, signData(t, c.key, c.hash, claim))
				if _, err := v.VerifyManifest(image, []Bundle{wrong}); err == nil {
					t.Error("accepted a signature of other bytes")
				}
			}
		})
	}
}

// TestFirstRuleDecides: a later, laxer rule is no way around an earlier one.
func TestFirstRuleDecides(t *testing.T) {
	narrow, broad := newSigner(t), newSigner(t)
	policy := fmt.Sprintf(`schema_version: 1
rules:
  - name: base
    images: ["registry.test:5000/modules/*"]
    modules: ["system-*"]
    keys:
      - pem: %s  - name: rest
    images: ["**"]
    keys:
      - pem: %s`, indent(string(narrow.PublicPEM())), indent(string(broad.PublicPEM())))
	v := verifierFor(t, policy, nil, Options{})
	base, rest := imageOf("system-base", "1"), imageOf("nginx", "1")
	if account, err := v.VerifyManifest(base, signImage(t, narrow, base)); err != nil || account.Rule != "base" {
		t.Errorf("%v, %v", account, err)
	}
	if account, err := v.VerifyManifest(rest, signImage(t, broad, rest)); err != nil || account.Rule != "rest" {
		t.Errorf("%v, %v", account, err)
	}
	account, err := v.VerifyManifest(base, signImage(t, broad, base))
	wantRefused(t, account, err, CheckSignature, "rule base")
	account, err = v.VerifyManifest(rest, signImage(t, narrow, rest))
	wantRefused(t, account, err, CheckSignature, "rule rest")
	if rules := v.Policy().Rules(); len(rules) != 2 || rules[0].Name != "base" || rules[0].Modules[0] != "system-*" || !strings.Contains(rules[1].Signers[0], broad.ID()) {
		t.Errorf("rules %+v", rules)
	}
}

func TestKeyWindow(t *testing.T) {
	key := newSigner(t)
	in := newInstance(t)
	now := time.Now().Truncate(time.Second)
	at := func(d time.Duration) string { return now.Add(d).UTC().Format(time.RFC3339) }
	window := func(from, to time.Duration, more string) string {
		return keyPolicy(string(key.PublicPEM()), "        not_before: "+at(from)+"\n        not_after: "+at(to)+"\n", more)
	}
	const withRoot = "    trusted_root: trusted_root.json\n"
	image := imageOf("nginx", "1.28.0")
	plain := signImage(t, key, image)[0]
	statement := statementFor(image.ManifestDigest)
	sig := key.sign(t, pae(statement))
	stamped := func(by *instance) Bundle {
		token, err := by.virtual.TimestampResponse(sig)
		fatal(t, err)
		b := dsseBundle(key.ID(), statement, sig)
		b.Data = []byte(strings.Replace(string(b.Data), `"publicKey":`,
			`"timestampVerificationData":{"rfc3161Timestamps":[{"signedTimestamp":"`+base64.StdEncoding.EncodeToString(token)+`"}]},"publicKey":`, 1))
		return b
	}
	for _, c := range []struct {
		name   string
		policy string
		clock  time.Duration
		bundle Bundle
		words  string // of the refusal; "" if it is accepted
	}{
		{"inside by the clock", window(-time.Hour, time.Hour, ""), 0, plain, ""},
		{"too late by the clock", window(-time.Hour, time.Hour, ""), 2 * time.Hour, plain, "was valid until " + at(time.Hour) + " (it is now"},
		{"too early by the clock", window(-time.Hour, time.Hour, ""), -2 * time.Hour, plain, "is valid from " + at(-time.Hour) + " (it is now"},
		{"signed inside, read later", window(-time.Hour, time.Hour, withRoot), 48 * time.Hour, stamped(in), ""},
		{"signed inside, read with a clock of 1970", window(-time.Hour, time.Hour, withRoot), -now.Sub(time.Unix(0, 0)), stamped(in), ""},
		{"signed too late, with a clock set back", window(-2*time.Hour, -time.Hour, withRoot), -90 * time.Minute, stamped(in), "not valid when it was signed"},
		{"signed too early", window(time.Hour, 2*time.Hour, withRoot), 90 * time.Minute, stamped(in), "not valid when it was signed"},
		{"timestamp of a foreign authority", window(-time.Hour, time.Hour, withRoot), 0, stamped(newInstance(t)), "no trusted time"},
		{"timestamp that nobody can judge counts for nothing", window(-time.Hour, time.Hour, ""), 2 * time.Hour, stamped(in), "was valid until"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := verifierFor(t, c.policy, in.trustedRoot(t), Options{Now: func() time.Time { return now.Add(c.clock) }})
			account, err := v.VerifyManifest(image, []Bundle{c.bundle})
			if c.words == "" {
				fatal(t, err)
				return
			}
			check, _ := FailedCheck(err)
			if check != CheckKey && check != CheckTime {
				t.Errorf("check %q", check)
			}
			wantRefused(t, account, err, check, c.words)
		})
	}
}

// TestKeyWithLogEntry: an entry that comes with a signature by key must be a good one if the rule
// has a trusted root, and gives the time then.
func TestKeyWithLogEntry(t *testing.T) {
	key, in := newSigner(t), newInstance(t)
	v := verifierFor(t, keyPolicy(string(key.PublicPEM()), "    trusted_root: trusted_root.json\n"), in.trustedRoot(t), Options{})
	image := imageOf("nginx", "1.28.0")
	sig, other := key.sign(t, image.Manifest), key.sign(t, image.Manifest)
	logged := func(by *instance, h how, sig []byte) Bundle {
		parsed, err := parseBundle(messageBundle(key.ID(), image.Manifest, sig).Data)
		fatal(t, err)
		parsed.VerificationMaterial.TlogEntries = []*protorekor.TransparencyLogEntry{by.log(t, h, "hashedrekord", map[string]any{
			"data":      map[string]any{"hash": map[string]string{"algorithm": "sha256", "value": image.ManifestDigest[len("sha256:"):]}},
			"signature": map[string]any{"content": other, "publicKey": map[string]any{"content": key.PublicPEM()}},
		})}
		return attach(t, parsed.Bundle)
	}
	for _, c := range []struct {
		name   string
		bundle Bundle
		timed  bool
		check  CheckName // that refuses; "" if it is accepted
	}{
		{"a good entry", logged(in, how{}, other), true, ""},
		{"a good entry without time", logged(in, how{noPromise: true}, other), false, ""},
		{"an entry of a foreign log", logged(newInstance(t), how{}, other), false, CheckLog},
		{"an entry about another signature", logged(in, how{}, sig), false, CheckLog},
	} {
		t.Run(c.name, func(t *testing.T) {
			account, err := v.VerifyManifest(image, []Bundle{c.bundle})
			if c.check != "" {
				wantRefused(t, account, err, c.check, "transparency log")
				return
			}
			fatal(t, err)
			has := func(name CheckName) bool {
				return slices.ContainsFunc(account.Checks, func(c Check) bool { return c.Name == name })
			}
			if !has(CheckLog) || has(CheckTime) != c.timed || account.SignedAt.IsZero() == c.timed {
				t.Errorf("account %+v", account)
			}
		})
	}
}

// TestCertificateWhereKeysAreDemanded and the reverse: neither kind of signer stands in for the
// other.
func TestCertificateWhereKeysAreDemanded(t *testing.T) {
	key, in := newSigner(t), newInstance(t)
	image := imageOf("nginx", "1.28.0")
	byKey := verifierFor(t, keyPolicy(string(key.PublicPEM()), "    trusted_root: trusted_root.json\n"), in.trustedRoot(t), Options{})
	account, err := byKey.VerifyManifest(image, []Bundle{attach(t, in.sign(t, how{}, statementFor(image.ManifestDigest), true))})
	wantRefused(t, account, err, CheckSignature, "accepts keys only")
	byIdentity := verifierFor(t, keylessPolicy, in.trustedRoot(t), Options{})
	for _, b := range signImage(t, key, image) {
		account, err = byIdentity.VerifyManifest(image, []Bundle{b})
		wantRefused(t, account, err, CheckSignature, "accepts certified identities only")
	}
}

// TestIncompleteAccount: an account that lacks a check is refused, whatever the check.
func TestIncompleteAccount(t *testing.T) {
	for _, c := range []struct {
		account  Verified
		required []CheckName
	}{
		{Verified{KeyID: "k"}, slices.Concat(keyChecks, manifestChecks)},
		{Verified{Subject: "s"}, slices.Concat(identityChecks, manifestChecks)},
	} {
		for _, leave := range c.required {
			account := c.account
			for _, name := range c.required {
				if name != leave {
					account.pass(name, "fine")
				}
			}
			if got, failure := account.complete(manifestChecks...); failure == nil || got != nil || failure.Check != leave {
				t.Errorf("without %q: %v, %v", leave, got, failure)
			}
			account.pass(leave, "fine")
			if _, failure := account.complete(manifestChecks...); failure != nil {
				t.Errorf("complete: %v", failure)
			}
		}
	}
}

func TestPanicIsARefusal(t *testing.T) {
	err := guarded(func() error { panic("hostile") })
	if err == nil || !strings.Contains(err.Error(), "hostile") {
		t.Error(err)
	}
}
