package signature

import (
	"crypto/elliptic"
	"slices"
	"testing"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
)

func TestKeylessImageIsVerified(t *testing.T) {
	in := newInstance(t)
	v := verifierFor(t, keylessPolicy, in.trustedRoot(t), Options{})
	image := imageOf("nginx", "1.28.0")
	statement, claim := statementFor(image.ManifestDigest), payloadFor(image)
	for name, b := range map[string]Bundle{
		"statement":              attach(t, in.sign(t, how{}, statement, true)),
		"statement, timestamped": attach(t, in.sign(t, how{stamp: true}, statement, true)),
		"statement, time from the authority only": attach(t, in.sign(t, how{stamp: true, noPromise: true}, statement, true)),
		"message over the manifest":               attach(t, in.sign(t, how{}, image.Manifest, false)),
		"message, key on P-384":                   attach(t, in.sign(t, how{curve: elliptic.P384()}, image.Manifest, false)),
		"older form":                              older(t, in.sign(t, how{}, claim, false), claim),
		"older form, timestamped":                 older(t, in.sign(t, how{stamp: true}, claim, false), claim),
	} {
		t.Run(name, func(t *testing.T) {
			account, err := v.VerifyManifest(image, []Bundle{b})
			fatal(t, err)
			if account.Subject != testSubject || account.Issuer != testIssuer || account.Rule != "site" || account.KeyID != "" {
				t.Errorf("account %+v", account)
			}
			if since := time.Since(account.SignedAt); since < -time.Minute || since > time.Minute {
				t.Errorf("signed at %v", account.SignedAt)
			}
			if !slices.IsSortedFunc(account.Checks, func(a, b Check) int { return a.Name.place() - b.Name.place() }) {
				t.Errorf("checks out of order: %v", account.Checks)
			}
			for _, name := range slices.Concat(identityChecks, manifestChecks) {
				if !slices.ContainsFunc(account.Checks, func(c Check) bool { return c.Name == name && c.Detail != "" }) {
					t.Errorf("check %q isn't in the account: %v", name, account.Checks)
				}
			}
		})
	}
}

func TestKeylessImageIsRefused(t *testing.T) {
	in, foreign := newInstance(t), newInstance(t)
	v := verifierFor(t, keylessPolicy, in.trustedRoot(t), Options{})
	image, other := imageOf("nginx", "1.28.0"), imageOf("postgres", "17.0")
	statement, claim := statementFor(image.ManifestDigest), payloadFor(image)
	expired := how{notBefore: time.Now().Add(-time.Minute), logged: time.Now().Add(20 * time.Minute)}
	tampered := func(change func(*protobundle.Bundle)) Bundle {
		b := in.sign(t, how{}, statement, true)
		change(b)
		return attach(t, b)
	}
	for _, c := range []struct {
		name   string
		bundle Bundle
		check  CheckName
		words  string
	}{
		{"wrong issuer", attach(t, in.sign(t, how{issuer: "https://issuer.evil"}, statement, true)), CheckIdentity, "issuer"},
		{"wrong identity", attach(t, in.sign(t, how{subject: testSubject + "x"}, statement, true)), CheckIdentity, "not one that is trusted"},
		{"expired certificate", attach(t, in.sign(t, expired, statement, true)), CheckCertificate, "was not valid when the transparency log saw it"},
		{"no time", attach(t, in.sign(t, how{noPromise: true}, statement, true)), CheckTime, "no trusted time"},
		{"no log entry", attach(t, in.sign(t, how{noLog: true, stamp: true}, statement, true)), CheckLog, "no entry of a transparency log"},
		{"no certificate log", attach(t, in.sign(t, how{noCT: true}, statement, true)), CheckCT, "no certificate log"},
		{"foreign certificate log", attach(t, in.sign(t, how{ctBy: foreign}, statement, true)), CheckCT, "no certificate log"},
		{"foreign timestamp", attach(t, in.sign(t, how{stampBy: foreign}, statement, true)), CheckTime, "no trusted time"},
		{"foreign root", attach(t, foreign.sign(t, how{}, statement, true)), CheckLog, "no entry of a transparency log of the trusted root"},
		{"another image", attach(t, in.sign(t, how{}, statementFor(other.ManifestDigest), true)), CheckSubject, "about another image"},
		{"an attestation", attach(t, in.sign(t, how{}, statementFor(image.ManifestDigest, "sigstore.dev/cosign/sign/v1", "slsa.dev/provenance/v1"), true)), CheckSubject, "an attestation"},
		{"older form, expired certificate", older(t, in.sign(t, expired, claim, false), claim), CheckCertificate, "was not valid"},
		{"older form, no log entry", older(t, in.sign(t, how{noLog: true}, claim, false), claim), CheckLog, "no entry"},
		{"older form, wrong issuer", older(t, in.sign(t, how{issuer: "https://issuer.evil"}, claim, false), claim), CheckIdentity, "issuer"},
		{"older form, changed payload", older(t, in.sign(t, how{}, claim, false), payloadFor(image, `"optional":null`, `"optional":{"a":1}`)), CheckLog, "doesn't verify"},
		{"older form, other image", older(t, in.sign(t, how{}, payloadFor(other), false), payloadFor(other)), CheckSubject, "about another image"},
		{"changed statement", tampered(func(b *protobundle.Bundle) {
			b.GetDsseEnvelope().Payload = statementFor(image.ManifestDigest, `"predicate":{}`, `"predicate":{"a":1}`)
		}), CheckLog, "doesn't verify"},
		{"changed signature", tampered(func(b *protobundle.Bundle) { b.GetDsseEnvelope().Signatures[0].Sig[8] ^= 1 }), CheckLog, "doesn't verify"},
		{"changed log time", tampered(func(b *protobundle.Bundle) { b.VerificationMaterial.TlogEntries[0].IntegratedTime++ }), CheckLog, "no entry"},
		{"changed proof", tampered(func(b *protobundle.Bundle) { b.VerificationMaterial.TlogEntries[0].InclusionProof.RootHash[0] ^= 1 }), CheckLog, "doesn't verify"},
		{"another's certificate", tampered(func(b *protobundle.Bundle) {
			b.VerificationMaterial.Content = in.sign(t, how{}, statement, true).VerificationMaterial.Content
		}), CheckLog, "doesn't verify"},
		{"another's log entry", tampered(func(b *protobundle.Bundle) {
			b.VerificationMaterial.TlogEntries = in.sign(t, how{}, statement, true).VerificationMaterial.TlogEntries
		}), CheckLog, "doesn't verify"},
	} {
		t.Run(c.name, func(t *testing.T) {
			account, err := v.VerifyManifest(image, []Bundle{c.bundle})
			wantRefused(t, account, err, c.check, c.words)
		})
	}
}

// TestForeignAuthority certifies the right identity, with everything else in order, by an authority
// that isn't the trusted root's.
func TestForeignAuthority(t *testing.T) {
	in, foreign := newInstance(t), newInstance(t)
	v := verifierFor(t, keylessPolicy, in.trustedRoot(t), Options{})
	image := imageOf("nginx", "1.28.0")
	mixed := *in
	mixed.authority, mixed.issuerKey = foreign.authority, foreign.issuerKey
	account, err := v.VerifyManifest(image, []Bundle{attach(t, mixed.sign(t, how{}, statementFor(image.ManifestDigest), true))})
	wantRefused(t, account, err, CheckCertificate, "not issued by an authority of the trusted root")
}

// TestSubjectRegexpMatchesAll: a subject that only contains what the expression matches isn't the
// trusted one.
func TestSubjectRegexpMatchesAll(t *testing.T) {
	in := newInstance(t)
	policy := `schema_version: 1
rules:
  - name: site
    images: ["**"]
    identities:
      - {issuer: "` + testIssuer + `", subject_regexp: 'https://github\.com/powernode/modules|https://github\.com/powernode/.*@refs/heads/main'}
    trusted_root: trusted_root.json
`
	v := verifierFor(t, policy, in.trustedRoot(t), Options{})
	image := imageOf("nginx", "1.28.0")
	statement := statementFor(image.ManifestDigest)
	if _, err := v.VerifyManifest(image, []Bundle{attach(t, in.sign(t, how{}, statement, true))}); err != nil {
		t.Error(err)
	}
	for _, subject := range []string{testSubject + "/evil", "https://evil.test/https://github.com/powernode/modules", "https://github.com/powernode/modules/x"} {
		account, err := v.VerifyManifest(image, []Bundle{attach(t, in.sign(t, how{subject: subject}, statement, true))})
		wantRefused(t, account, err, CheckIdentity, "not one that is trusted")
	}
}
