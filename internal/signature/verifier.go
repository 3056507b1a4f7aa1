package signature

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/module"
)

// Options are what a Verifier needs besides the policy.
type Options struct {
	// Now is the clock that a key's validity window is held against where the bundle has no
	// trusted time; nil means time.Now.
	Now func() time.Time
}

// Verifier verifies image manifests by a policy. It is safe for concurrent use.
type Verifier struct {
	policy *Policy
	now    func() time.Time
}

// NewVerifier returns a Verifier. Without a policy that has rules it is a fault.Refuse in area
// Verify: there is no verifier that trusts nobody, nor one that trusts everybody.
func NewVerifier(policy *Policy, options Options) (*Verifier, error) {
	if policy == nil || len(policy.rules) == 0 {
		return nil, fault.New(fault.Refuse, fault.Verify, "write a trust policy; docs/trust.md describes it", "there is no trust policy to verify with")
	}
	v := &Verifier{policy: policy, now: options.Now}
	if v.now == nil {
		v.now = time.Now
	}
	return v, nil
}

// Policy returns the policy that the Verifier follows.
func (v *Verifier) Policy() *Policy { return v.policy }

// Subject is an image manifest and what it was pulled as.
type Subject struct {
	// Repository is the name that it was pulled by: host/path, without tag or digest.
	Repository string
	// ManifestDigest is the digest that was asked for: "sha256:…".
	ManifestDigest string
	// Manifest are the manifest's bytes as they came.
	Manifest []byte
	// Name and Version are those of the module that was asked for.
	Name    string
	Version string
}

// failuresShown is how many refused signatures an error lists.
const failuresShown = 4

// VerifyManifest verifies that a manifest has the digest that was asked for, that at least one of
// the signatures satisfies the rule for its image and module, and that the signed manifest names
// the module and version that were asked for. A verdict is a fault.Refuse in area Verify whose
// chain holds a Failure.
func (v *Verifier) VerifyManifest(subject Subject, bundles []Bundle) (*Verified, error) {
	account, failure := v.verifyManifest(subject, bundles)
	if failure == nil {
		return account, nil
	}
	return nil, fault.New(fault.Refuse, fault.Verify, failure.Check.hint(), "verify module %.80s %.140s (%.200s@%.80s): %w",
		subject.Name, subject.Version, subject.Repository, subject.ManifestDigest, failure)
}

func (v *Verifier) verifyManifest(subject Subject, bundles []Bundle) (*Verified, *Failure) {
	if failure := checkSubject(subject); failure != nil {
		return nil, failure
	}
	r := v.policy.find(subject.Repository, subject.Name)
	switch {
	case r == nil:
		return nil, fail(CheckPolicy, nil, "no rule of the trust policy covers this module of this image")
	case len(bundles) == 0:
		return nil, &Failure{Check: CheckBundle, text: "it is not signed"}
	case len(bundles) > BundlesMax:
		return nil, fail(CheckBundle, nil, "it has %d signatures; at most %d are looked at", len(bundles), BundlesMax)
	}
	var failures []*Failure
	for _, b := range bundles {
		account, failure := v.verifyOne(r, subject, b)
		if failure != nil {
			failures = append(failures, failure)
			continue
		}
		return finish(account, r, subject)
	}
	return nil, summarize(failures)
}

// checkSubject checks the caller's question, and the digest of the manifest.
func checkSubject(subject Subject) *Failure {
	if err := checkRepository(subject.Repository); err != nil {
		return fail(CheckPolicy, err, "the repository's name is not valid")
	}
	err := module.CheckName(subject.Name)
	if err == nil {
		err = module.CheckVersion(subject.Version)
	}
	if err != nil {
		return fail(CheckModule, err, "the module that was asked for is not named validly")
	}
	want, err := parseDigest(subject.ManifestDigest)
	if err != nil {
		return fail(CheckDigest, err, "the manifest's digest is not valid")
	}
	if len(subject.Manifest) > ManifestMax {
		return fail(CheckDigest, nil, "the manifest is larger than %d bytes", ManifestMax)
	}
	if sum := sha256.Sum256(subject.Manifest); !bytes.Equal(sum[:], want) {
		return fail(CheckDigest, nil, "the manifest's bytes have the digest sha256:%x", sum)
	}
	return nil
}

// verifyOne verifies one signature.
func (v *Verifier) verifyOne(r *rule, subject Subject, b Bundle) (*Verified, *Failure) {
	sig, err := b.parse()
	if err != nil {
		return nil, fail(CheckBundle, err, "it is not a signature that can be verified")
	}
	signedBytes, failure := checkClaim(sig, subject.Manifest, subject.ManifestDigest)
	if failure != nil {
		return nil, failure
	}
	if sig.payload != nil {
		if failure := checkReference(r, sig.payload); failure != nil {
			return nil, failure
		}
	}
	d := demand{keys: r.keys, identities: r.identities, trusted: r.trusted, who: "rule " + r.name, now: v.now()}
	account, failure := d.judge(sig, signedBytes)
	if failure != nil {
		return nil, failure
	}
	account.pass(CheckSubject, "signs the image with this digest")
	if sig.payload != nil {
		account.pass(CheckReference, "%s", sig.payload.reference)
	}
	return account, nil
}

// finish binds name and version to the manifest, whose signature is good, and completes the
// account.
func finish(account *Verified, r *rule, subject Subject) (*Verified, *Failure) {
	name, version, err := ModuleOf(subject.Manifest)
	switch {
	case err != nil:
		return nil, fail(CheckModule, err, "it is validly signed, but not as a module")
	case name != subject.Name || version != subject.Version:
		return nil, fail(CheckModule, nil, "it is validly signed, but as module %s %s", name, version)
	}
	account.Rule = r.name
	account.pass(CheckDigest, "%s", subject.ManifestDigest)
	account.pass(CheckPolicy, "rule %s covers %s", r.name, subject.Repository)
	account.pass(CheckModule, "%s %s", name, version)
	return account.complete(manifestChecks...)
}

// summarize makes one failure of several, that of the signature which came farthest.
func summarize(failures []*Failure) *Failure {
	best := failures[0]
	if len(failures) == 1 {
		return fail(best.Check, best.cause, "its signature is refused: %s", best.text)
	}
	var texts []string
	for i, f := range failures {
		if f.Check.place() > best.Check.place() {
			best = f
		}
		if i < failuresShown {
			texts = append(texts, fmt.Sprintf("%d: %s", i+1, f.Error()))
		}
	}
	if more := len(failures) - failuresShown; more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return fail(best.Check, nil, "none of its %d signatures is good; %s", len(failures), strings.Join(texts, "; "))
}
