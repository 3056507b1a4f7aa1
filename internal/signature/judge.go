package signature

import (
	"crypto/x509"
	"slices"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

// demand is what one signature has to satisfy: it must come from any one of the keys or
// identities.
type demand struct {
	keys       []key
	identities []identity
	trusted    *root.TrustedRoot
	// logKeys demands that signatures by key are in the transparency log too.
	logKeys bool
	// who names the party that demands, for messages: "rule site".
	who string
	now time.Time
}

// artifact gives the bytes that must have been signed, anew for each attempt. buffers says that
// the algorithm will hold them in memory.
type artifact func(buffers bool) verify.ArtifactPolicyOption

// judge verifies the cryptography of one signature, and returns an account with its checks.
func (d *demand) judge(sig *signed, what artifact) (*Verified, *Failure) {
	content, err := sig.bundle.VerificationContent()
	switch {
	case err != nil:
		return nil, fail(CheckBundle, err, "it holds no usable key or certificate")
	case content.Certificate() != nil && len(d.identities) == 0:
		return nil, fail(CheckSignature, nil, "it was made with a certificate, but %s accepts keys only", d.who)
	case content.Certificate() != nil:
		return d.judgeIdentity(sig, content.Certificate(), what)
	case len(d.keys) == 0:
		return nil, fail(CheckSignature, nil, "it was made with a key, but %s accepts certified identities only", d.who)
	default:
		return d.judgeKeys(sig, content.PublicKey().Hint(), what)
	}
}

// judgeKeys tries the demanded keys, the one that the signature names first. The name is only a
// hint that anybody can write.
func (d *demand) judgeKeys(sig *signed, named string, what artifact) (*Verified, *Failure) {
	known := slices.IndexFunc(d.keys, func(k key) bool { return k.id == named })
	order := slices.Clone(d.keys)
	if known >= 0 {
		order[0], order[known] = order[known], order[0]
	}
	var worst *Failure
	for i := range order {
		account, failure := d.judgeKey(sig, &order[i], what)
		if failure == nil {
			return account, nil
		}
		if worst == nil || failure.Check.place() > worst.Check.place() {
			worst = failure
		}
	}
	if worst.Check != CheckSignature {
		return nil, worst
	}
	switch {
	case known >= 0:
		return nil, fail(CheckSignature, nil, "it names key %s, but doesn't verify with it: the signature or what was signed has been changed", d.keys[known].name)
	case named != "":
		return nil, fail(CheckSignature, nil, "it was made with the key %.60q, which %s doesn't name", named, d.who)
	default:
		return nil, fail(CheckSignature, nil, "it was made with none of the keys of %s, or has been changed", d.who)
	}
}

// judgeKey verifies the signature with one key. Log entries and timestamps that the bundle carries
// must verify if the trusted root can judge them; the key's window then counts at those times, and
// otherwise now.
func (d *demand) judgeKey(sig *signed, k *key, what artifact) (*Verified, *Failure) {
	material := root.TrustedMaterialCollection{root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) {
		return root.NewExpiringKey(k.verifier, k.notBefore, k.notAfter), nil
	})}
	var options []verify.VerifierOption
	timed, logged := false, false
	if d.trusted != nil {
		material = append(material, d.trusted)
		entries := len(sig.bundle.VerificationMaterial.GetTlogEntries())
		if len(d.trusted.RekorLogs()) > 0 && (entries > 0 || d.logKeys) {
			logged = true
			options = append(options, verify.WithTransparencyLog(1))
			if sig.bundle.HasInclusionPromise() {
				timed = true
				options = append(options, verify.WithIntegratedTimestamps(1))
			}
		}
		if d.stamped(sig) {
			timed = true
			options = append(options, verify.WithSignedTimestamps(1))
		}
	}
	if !timed {
		options = append(options, verify.WithNoObserverTimestamps())
	}
	result, failure := run(material, options, sig, verify.NewPolicy(what(k.buffers), verify.WithKey()))
	if failure != nil {
		return nil, failure
	}
	if result.Signature == nil || result.Signature.Certificate != nil {
		return nil, fail(CheckSignature, nil, "it was not made with a key")
	}
	v := &Verified{Form: sig.form, KeyName: k.name, KeyID: k.id, SignedAt: earliest(result)}
	v.pass(CheckBundle, "%s", sig.form)
	v.pass(CheckSignature, "made with key %s", k.id)
	if logged {
		v.pass(CheckLog, "an entry of a log of the trusted root")
	}
	if timed {
		v.pass(CheckTime, "signed at %s", v.SignedAt.UTC().Format(time.RFC3339))
	}
	if failure := d.checkWindow(v, k); failure != nil {
		return nil, failure
	}
	return v, nil
}

// checkWindow holds the key's validity window against the trusted time, or, where there is none,
// the clock: without a witness, who has a retired key can sign with any date.
func (d *demand) checkWindow(v *Verified, k *key) *Failure {
	at, clock := v.SignedAt, "signed at"
	if at.IsZero() {
		at, clock = d.now, "it is now"
	}
	switch stamp := at.UTC().Format(time.RFC3339); {
	case !k.notBefore.IsZero() && at.Before(k.notBefore):
		return fail(CheckKey, nil, "key %s is valid from %s (%s %s)", k.name, k.notBefore.UTC().Format(time.RFC3339), clock, stamp)
	case !k.notAfter.IsZero() && at.After(k.notAfter):
		return fail(CheckKey, nil, "key %s was valid until %s (%s %s)", k.name, k.notAfter.UTC().Format(time.RFC3339), clock, stamp)
	case k.notBefore.IsZero() && k.notAfter.IsZero():
		v.pass(CheckKey, "%s has %s, without a validity window", d.who, k.name)
	default:
		v.pass(CheckKey, "%s has %s, valid (%s %s)", d.who, k.name, clock, stamp)
	}
	return nil
}

// judgeIdentity verifies a keyless signature: log entry, trusted time, certificate, its own log,
// and one of the identities. None of these is optional.
func (d *demand) judgeIdentity(sig *signed, certificate *x509.Certificate, what artifact) (*Verified, *Failure) {
	options := []verify.VerifierOption{
		verify.WithTransparencyLog(1), verify.WithObserverTimestamps(1), verify.WithSignedCertificateTimestamps(1),
	}
	if d.stamped(sig) {
		options = append(options, verify.WithSignedTimestamps(1))
	}
	var matchers []verify.PolicyOption
	for _, id := range d.identities {
		matchers = append(matchers, verify.WithCertificateIdentity(id.matcher))
	}
	result, failure := run(d.trusted, options, sig, verify.NewPolicy(what(!streams(certificate.PublicKey)), matchers...))
	if failure != nil {
		return nil, failure
	}
	if result.Signature == nil || result.Signature.Certificate == nil || result.VerifiedIdentity == nil || len(result.VerifiedTimestamps) == 0 {
		return nil, fail(CheckIdentity, nil, "its certificate was not judged")
	}
	cert := result.Signature.Certificate
	v := &Verified{Form: sig.form, Subject: cert.SubjectAlternativeName, Issuer: cert.Issuer, SignedAt: earliest(result)}
	v.pass(CheckBundle, "%s", sig.form)
	v.pass(CheckSignature, "made with the certificate's key")
	v.pass(CheckLog, "an entry of a log of the trusted root")
	v.pass(CheckTime, "signed at %s", v.SignedAt.UTC().Format(time.RFC3339))
	v.pass(CheckCertificate, "issued by an authority of the trusted root, valid at that time")
	v.pass(CheckCT, "logged by a certificate log of the trusted root")
	v.pass(CheckIdentity, "%s certified by %s", v.Subject, v.Issuer)
	return v, nil
}

// stamped reports whether the bundle has timestamps that the trusted root can judge.
func (d *demand) stamped(sig *signed) bool {
	stamps, err := sig.bundle.Timestamps()
	return err == nil && len(stamps) > 0 && len(d.trusted.TimestampingAuthorities()) > 0
}

// run calls the library.
func run(material root.TrustedMaterial, options []verify.VerifierOption, sig *signed, policy verify.PolicyBuilder) (result *verify.VerificationResult, failure *Failure) {
	err := guarded(func() error {
		verifier, err := verify.NewVerifier(material, options...)
		if err != nil {
			return err
		}
		result, err = verifier.Verify(sig.bundle, policy)
		return err
	})
	if err != nil {
		return nil, classify(err)
	}
	return result, nil
}

// earliest returns the earliest trusted time of the signature, or zero.
func earliest(result *verify.VerificationResult) time.Time {
	var at time.Time
	for _, stamp := range result.VerifiedTimestamps {
		if at.IsZero() || stamp.Timestamp.Before(at) {
			at = stamp.Timestamp
		}
	}
	return at
}
