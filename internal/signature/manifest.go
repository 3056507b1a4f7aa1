package signature

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/powernode/powernode-agent/internal/module"
)

// ManifestMax is the largest image manifest in bytes, as the OCI distribution specification asks
// registries to accept at least.
const ManifestMax = 4 << 20

// manifestTypes are the media types of an image manifest.
var manifestTypes = []string{
	"application/vnd.oci.image.manifest.v1+json",
	"application/vnd.docker.distribution.manifest.v2+json",
}

// ModuleOf returns the module name and version that an image manifest carries in its
// annotations. They are the author's word only once VerifyManifest has passed.
func ModuleOf(manifest []byte) (name, version string, err error) {
	if len(manifest) > ManifestMax {
		return "", "", fmt.Errorf("the manifest is larger than %d bytes", ManifestMax)
	}
	if err := checkJSON(manifest); err != nil {
		return "", "", fmt.Errorf("the manifest is not strict JSON: %w", err)
	}
	var doc struct {
		MediaType   string            `json:"mediaType"`
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(manifest, &doc); err != nil {
		return "", "", fmt.Errorf("the manifest doesn't parse: %w", err)
	}
	switch {
	case strings.Contains(doc.MediaType, "index") || strings.Contains(doc.MediaType, "manifest.list"):
		return "", "", errors.New("it is an index of several images; each architecture's manifest is signed and verified by itself")
	case !slices.Contains(manifestTypes, doc.MediaType):
		return "", "", fmt.Errorf("its media type %.100q is not that of an image manifest", doc.MediaType)
	}
	name, version = doc.Annotations[module.AnnotationName], doc.Annotations[module.AnnotationVersion]
	if err := module.CheckName(name); err != nil {
		return "", "", fmt.Errorf("annotation %s: %w", module.AnnotationName, err)
	}
	if err := module.CheckVersion(version); err != nil {
		return "", "", fmt.Errorf("annotation %s: %w", module.AnnotationVersion, err)
	}
	return name, version, nil
}

// The in-toto statement by which cosign 3 signs an image. Attestations (build provenance, bills of
// materials) are attached to an image in the same way and often made with the same key; only the
// predicate type tells them apart.
const (
	statementV1   = "https://in-toto.io/Statement/v1"
	statementV01  = "https://in-toto.io/Statement/v0.1"
	predicateSign = "https://sigstore.dev/cosign/sign/v1"
)

// checkClaim reports whether what was signed, if the signature is good, is a claim about the
// manifest with that digest ("sha256:…"), and returns the bytes that the signature covers.
func checkClaim(sig *signed, manifest []byte, digest string) (artifact, *Failure) {
	sum := sha256.Sum256(manifest)
	envelope, message := sig.bundle.GetDsseEnvelope(), sig.bundle.GetMessageSignature()
	switch {
	case sig.payload != nil:
		if sig.payload.digest != digest {
			return nil, fail(CheckSubject, nil, "it is about another image, %.100q", sig.payload.digest)
		}
		return whole(sig.payload.raw), nil
	case envelope != nil:
		if err := checkStatement(envelope.GetPayload(), digest); err != nil {
			return nil, fail(CheckSubject, err, "its statement is not the signature of this image")
		}
		return func(bool) verify.ArtifactPolicyOption { return verify.WithArtifactDigest("sha256", sum[:]) }, nil
	case message != nil:
		// What it says about itself is a hint; whole below makes the signature cover the bytes.
		claimed := message.GetMessageDigest().GetDigest()
		if len(claimed) == len(sum) && !bytes.Equal(claimed, sum[:]) {
			return nil, fail(CheckSubject, nil, "it is about other bytes, sha256:%x", claimed)
		}
		return whole(manifest), nil
	default:
		return nil, fail(CheckBundle, nil, "it holds no signature")
	}
}

// whole makes an artifact of bytes in memory.
func whole(data []byte) artifact {
	return func(bool) verify.ArtifactPolicyOption { return verify.WithArtifact(bytes.NewReader(data)) }
}

// checkStatement checks every binding of cosign's statement: the type, the predicate's type, and
// that its one subject has the digest and no other.
func checkStatement(text []byte, digest string) error {
	if err := checkJSON(text); err != nil {
		return err
	}
	var doc struct {
		Type          string `json:"_type"`
		PredicateType string `json:"predicateType"`
		Subject       []struct {
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return err
	}
	switch {
	case doc.Type != statementV1 && doc.Type != statementV01:
		return fmt.Errorf("its type is %.80q", doc.Type)
	case doc.PredicateType != predicateSign:
		return fmt.Errorf("its predicate type is %.100q, an attestation, not %q", doc.PredicateType, predicateSign)
	case len(doc.Subject) != 1 || len(doc.Subject[0].Digest) != 1:
		return errors.New("it doesn't have exactly one subject with one digest")
	case "sha256:"+doc.Subject[0].Digest["sha256"] != digest:
		return fmt.Errorf("it is about another image, %.100q", "sha256:"+doc.Subject[0].Digest["sha256"])
	}
	return nil
}

// checkReference holds the repository that the older form claims to the rule's images. A claim of
// a mirror's origin is fine if the rule names the origin too.
func checkReference(r *rule, claim *payload) *Failure {
	name, _, _ := strings.Cut(claim.reference, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name = name[:i]
	}
	if checkRepository(name) != nil || !r.coversImage(name) {
		return fail(CheckReference, nil, "it claims the repository %.200q, which rule %s doesn't cover", claim.reference, r.name)
	}
	return nil
}

// parseDigest returns the raw digest of "sha256:<64 lower-case hexadecimal digits>".
func parseDigest(text string) ([]byte, error) {
	digits, ok := strings.CutPrefix(text, "sha256:")
	raw, err := hex.DecodeString(digits)
	if !ok || err != nil || len(raw) != sha256.Size || strings.ToLower(digits) != digits {
		return nil, fmt.Errorf("%.100q is not a digest of the form sha256:<64 lower-case hexadecimal digits>", text)
	}
	return raw, nil
}
