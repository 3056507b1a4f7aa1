package signature

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// CheckName names one check of a verification.
type CheckName string

// The checks, in the order in which a verification passes them.
const (
	CheckDigest      CheckName = "digest"           // the manifest's bytes have the digest that was asked for
	CheckPolicy      CheckName = "policy"           // a rule covers the image and the module
	CheckBundle      CheckName = "bundle"           // the signature is well formed and within bounds
	CheckSubject     CheckName = "subject"          // what was signed is a claim about these very bytes
	CheckReference   CheckName = "reference"        // the repository that the older form claims is the rule's
	CheckSignature   CheckName = "signature"        // the cryptography
	CheckLog         CheckName = "transparency log" // the log has the signature, and says so verifiably
	CheckTime        CheckName = "time"             // a trusted party says when it was signed
	CheckCertificate CheckName = "certificate"      // the certificate leads to the trusted root and was valid then
	CheckCT          CheckName = "certificate log"  // the certificate was logged when it was issued
	CheckIdentity    CheckName = "identity"         // the certificate names an identity that is trusted
	CheckKey         CheckName = "key"              // the key is one that is trusted, within its validity window
	CheckModule      CheckName = "module"           // the signed manifest carries the module's name and version
)

// checkOrder is that order.
var checkOrder = []CheckName{
	CheckDigest, CheckPolicy, CheckBundle, CheckSubject, CheckReference, CheckSignature,
	CheckLog, CheckTime, CheckCertificate, CheckCT, CheckIdentity, CheckKey, CheckModule,
}

func (c CheckName) place() int { return slices.Index(checkOrder, c) }

// The checks without which no signature of the kind counts.
var (
	keyChecks      = []CheckName{CheckBundle, CheckSubject, CheckSignature, CheckKey}
	identityChecks = []CheckName{CheckBundle, CheckSubject, CheckSignature, CheckLog, CheckTime, CheckCertificate, CheckCT, CheckIdentity}
	manifestChecks = []CheckName{CheckDigest, CheckPolicy, CheckModule}
)

// Check is a check that ran and passed.
type Check struct {
	Name CheckName `json:"name"`
	// Detail says what was compared or found, for people.
	Detail string `json:"detail"`
}

// Verified is the account of a verification that passed. Only this package makes one.
type Verified struct {
	// Rule is the name of the policy's rule that decided; "" for a plain file.
	Rule string `json:"rule,omitempty"`
	// Form says how the signature was attached.
	Form string `json:"form"`
	// KeyName and KeyID are set for a signature by key; the ID is signing.Key.ID.
	KeyName string `json:"key_name,omitempty"`
	KeyID   string `json:"key_id,omitempty"`
	// Subject and Issuer are set for a keyless signature: who signed and who vouches for that.
	Subject string `json:"subject,omitempty"`
	Issuer  string `json:"issuer,omitempty"`
	// SignedAt is the earliest time at which a trusted party saw the signature; zero if none
	// did.
	SignedAt time.Time `json:"signed_at,omitzero"`
	// Checks are all that ran, in order; each passed.
	Checks []Check `json:"checks"`
}

// Signer returns the signer in words.
func (v *Verified) Signer() string {
	if v.KeyID != "" {
		return "key " + v.KeyName
	}
	return v.Subject + " certified by " + v.Issuer
}

func (v *Verified) pass(name CheckName, format string, args ...any) {
	v.Checks = append(v.Checks, Check{Name: name, Detail: fmt.Sprintf(format, args...)})
}

// complete returns v if every check that it needs is among those that passed. A gap is a defect
// of this package, and refused all the same.
func (v *Verified) complete(extra ...CheckName) (*Verified, *Failure) {
	required := keyChecks
	if v.KeyID == "" {
		required = identityChecks
	}
	for _, name := range slices.Concat(required, extra) {
		if !slices.ContainsFunc(v.Checks, func(c Check) bool { return c.Name == name }) {
			return nil, &Failure{Check: name, text: "the check did not run"}
		}
	}
	slices.SortStableFunc(v.Checks, func(a, b Check) int { return cmp.Compare(a.Name.place(), b.Name.place()) })
	return v, nil
}

// Failure says which check refused a signature and why. It is in the chain of every error of
// VerifyManifest and VerifyBlob that is a verdict.
type Failure struct {
	Check CheckName
	text  string
	cause error
}

func fail(name CheckName, cause error, format string, args ...any) *Failure {
	return &Failure{Check: name, text: fmt.Sprintf(format, args...), cause: cause}
}

// Error returns the text with the cause's, on one line.
func (f *Failure) Error() string {
	if f.cause == nil {
		return f.text
	}
	return f.text + ": " + tidy(f.cause)
}

// Unwrap returns the cause, if any.
func (f *Failure) Unwrap() error { return f.cause }

// FailedCheck returns the check that refused, if err is a verdict.
func FailedCheck(err error) (CheckName, bool) {
	if f, ok := errors.AsType[*Failure](err); ok {
		return f.Check, true
	}
	return "", false
}

// hint says what a person can do about a failure of the check.
func (c CheckName) hint() string {
	switch c {
	case CheckDigest:
		return "pull it again; if that doesn't help, the registry serves other bytes than were asked for"
	case CheckPolicy:
		return "if it is to be trusted, add a rule for it to the trust policy"
	case CheckBundle:
		return "sign it again with powernode module publish or cosign"
	case CheckSubject:
		return "sign this very image or file; the signature that came with it is about something else"
	case CheckReference:
		return "sign it under the name that it is pulled by, or add the claimed name to the rule's images"
	case CheckSignature:
		return "find out who signed it; if that signer is to be trusted, add the key to the trust policy"
	case CheckLog, CheckTime:
		return "sign it with a transparency log and a timestamp that the trusted root knows"
	case CheckCertificate, CheckCT:
		return "check that the trusted root is that of the Sigstore instance that certified the signer"
	case CheckIdentity:
		return "find out who signed it; if that identity is to be trusted, add it to the trust policy"
	case CheckKey:
		return "sign it again with a key that is valid now"
	case CheckModule:
		return "assign the module under the name and version that it was published with"
	default:
		return ""
	}
}
