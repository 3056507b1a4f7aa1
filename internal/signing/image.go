package signing

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
)

// How cosign (3.1 and 2.5) attaches signatures to an image; whoever pushes them needs these.
const (
	// BundleMediaType is the type of a bundle's layer, and the artifactType of the referring
	// manifest.
	BundleMediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"
	// AnnotationBundleContent and AnnotationPredicateType stand on the referring manifest, with
	// the values BundleContent and PredicateType.
	AnnotationBundleContent = "dev.sigstore.bundle.content"
	AnnotationPredicateType = "dev.sigstore.bundle.predicateType"
	BundleContent           = "dsse-envelope"
	PredicateType           = "https://sigstore.dev/cosign/sign/v1"

	// PayloadMediaType is the type of the older form's layer, in the image tagged
	// sha256-<hex>.sig, whose annotation AnnotationSignature holds the signature.
	PayloadMediaType    = "application/vnd.dev.cosign.simplesigning.v1+json"
	AnnotationSignature = "dev.cosignproject.cosign/signature"
)

const (
	statementType = "https://in-toto.io/Statement/v1"
	statementMIME = "application/vnd.in-toto+json"
	payloadType   = "cosign container image signature"
)

// Image is what to sign.
type Image struct {
	// Digest is the digest of the image manifest: "sha256:" and 64 lower-case hexadecimal digits.
	Digest string
	// Repository is the name that the image is published under, host and path without tag or
	// digest. The older form claims it; the bundle doesn't.
	Repository string
}

// Signatures are the two forms of one signature.
type Signatures struct {
	// Bundle is a Sigstore bundle v0.3 (JSON): a DSSE envelope around an in-toto statement
	// whose one subject is the manifest.
	Bundle []byte
	// Payload is the older form's document and Signature its signature in standard base64.
	Payload   []byte
	Signature string
}

// SignManifest signs an image manifest by its digest.
func SignManifest(key *Key, image Image) (Signatures, error) {
	hexDigest, ok := strings.CutPrefix(image.Digest, "sha256:")
	if raw, err := hex.DecodeString(hexDigest); !ok || err != nil || len(raw) != 32 || strings.ToLower(hexDigest) != hexDigest {
		return Signatures{}, fault.New(fault.Refuse, fault.Input, "give the digest of the image manifest as sha256:<64 hexadecimal digits>",
			"sign image: digest %.80q is not valid", image.Digest)
	}
	if image.Repository == "" || strings.ContainsAny(image.Repository, "@ \t\n") {
		return Signatures{}, fault.New(fault.Refuse, fault.Input, "name the repository as host/path, without tag or digest",
			"sign image %s: repository %.200q is not valid", image.Digest, image.Repository)
	}
	bundle, err := signBundle(key, hexDigest)
	if err != nil {
		return Signatures{}, fmt.Errorf("sign image %s: %w", image.Digest, err)
	}
	payload, signature, err := signPayload(key, image)
	if err != nil {
		return Signatures{}, fmt.Errorf("sign image %s: %w", image.Digest, err)
	}
	return Signatures{Bundle: bundle, Payload: payload, Signature: signature}, nil
}

// signBundle makes the bundle.
func signBundle(key *Key, hexDigest string) ([]byte, error) {
	type subject struct {
		Digest map[string]string `json:"digest"`
	}
	statement, err := json.Marshal(struct {
		Type          string    `json:"_type"`
		Subject       []subject `json:"subject"`
		PredicateType string    `json:"predicateType"`
		Predicate     struct{}  `json:"predicate"`
	}{
		Type:          statementType,
		Subject:       []subject{{Digest: map[string]string{"sha256": hexDigest}}},
		PredicateType: PredicateType,
	})
	if err != nil {
		return nil, err
	}
	// The pre-authentication encoding of DSSE v1.0.0: what is signed covers the type too.
	sig, err := key.sign(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(statementMIME), statementMIME, len(statement), statement))
	if err != nil {
		return nil, err
	}
	var doc bundleDoc
	doc.MediaType = BundleMediaType
	doc.VerificationMaterial.PublicKey.Hint = key.ID()
	doc.DSSEEnvelope.Payload = statement
	doc.DSSEEnvelope.PayloadType = statementMIME
	doc.DSSEEnvelope.Signatures = []envelopeSignature{{Sig: sig}}
	return json.Marshal(doc)
}

// bundleDoc is the part of the Sigstore bundle format v0.3 that a signature by key needs, in the
// JSON encoding of its protocol buffer: byte strings are standard base64.
type bundleDoc struct {
	MediaType            string `json:"mediaType"`
	VerificationMaterial struct {
		PublicKey struct {
			Hint string `json:"hint"`
		} `json:"publicKey"`
	} `json:"verificationMaterial"`
	DSSEEnvelope struct {
		Payload     []byte              `json:"payload"`
		PayloadType string              `json:"payloadType"`
		Signatures  []envelopeSignature `json:"signatures"`
	} `json:"dsseEnvelope"`
}

type envelopeSignature struct {
	Sig []byte `json:"sig"`
}

// signPayload makes the older form: the "simple signing" document of atomic container signatures
// with cosign's type in it.
func signPayload(key *Key, image Image) (payload []byte, signature string, err error) {
	var doc struct {
		Critical struct {
			Identity struct {
				DockerReference string `json:"docker-reference"`
			} `json:"identity"`
			Image struct {
				DockerManifestDigest string `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
		Optional map[string]any `json:"optional"`
	}
	doc.Critical.Identity.DockerReference = image.Repository
	doc.Critical.Image.DockerManifestDigest = image.Digest
	doc.Critical.Type = payloadType
	if payload, err = json.Marshal(doc); err != nil {
		return nil, "", err
	}
	sig, err := key.sign(payload)
	if err != nil {
		return nil, "", err
	}
	return payload, base64.StdEncoding.EncodeToString(sig), nil
}
