package signature

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
)

// The annotations of the older form's layer, as cosign 1 and 2 write them.
const (
	annotationSignature   = "dev.cosignproject.cosign/signature"
	annotationCertificate = "dev.sigstore.cosign/certificate"
	annotationRekor       = "dev.sigstore.cosign/bundle"
	annotationTimestamp   = "dev.sigstore.cosign/rfc3161timestamp"
)

// payloadAnnotations are those that verification reads. The certificate chain that cosign attaches
// too isn't among them: intermediates come from the trusted root.
var payloadAnnotations = []string{annotationSignature, annotationCertificate, annotationRekor, annotationTimestamp}

// payloadType is the only value of critical.type that cosign writes.
const payloadType = "cosign container image signature"

// payload is the "simple signing" document of the older form: a claim about one image.
type payload struct {
	raw       []byte
	reference string // critical.identity.docker-reference
	digest    string // critical.image.docker-manifest-digest
}

// parseSimpleSigning reads the document. Its "critical" part must be understood whole, says the
// format (containers/image, atomic container signature); "optional" may hold anything.
func parseSimpleSigning(text []byte) (*payload, error) {
	if err := checkJSON(text); err != nil {
		return nil, err
	}
	var doc struct {
		Critical struct {
			Identity struct {
				Reference string `json:"docker-reference"`
			} `json:"identity"`
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
		Optional json.RawMessage `json:"optional"`
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&doc); err != nil {
		return nil, err
	}
	if doc.Critical.Type != payloadType {
		return nil, fmt.Errorf("its critical.type is %.80q, not %q", doc.Critical.Type, payloadType)
	}
	return &payload{raw: text, reference: doc.Critical.Identity.Reference, digest: doc.Critical.Image.Digest}, nil
}

// parsePayload turns the older form into a Sigstore bundle with a message signature over the
// payload: by key if there is no certificate, else keyless.
func (b Bundle) parsePayload() (*signed, error) {
	for _, name := range payloadAnnotations {
		if len(b.Annotations[name]) > BundleMax {
			return nil, fmt.Errorf("its annotation %s is larger than %d bytes", name, BundleMax)
		}
	}
	claim, err := parseSimpleSigning(b.Data)
	if err != nil {
		return nil, err
	}
	sig, err := base64.StdEncoding.DecodeString(b.Annotations[annotationSignature])
	if err != nil || len(sig) == 0 {
		return nil, fmt.Errorf("its annotation %s is not a signature in base64", annotationSignature)
	}
	sum := sha256.Sum256(b.Data)
	out := &protobundle.Bundle{
		MediaType: MediaTypeBundle + ".v0.3+json",
		Content: &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: sum[:]},
			Signature:     sig,
		}},
	}
	if out.VerificationMaterial, err = b.material(); err != nil {
		return nil, err
	}
	if len(out.VerificationMaterial.TlogEntries) > 0 {
		// Cosign kept the log's promise with the signature, not a proof: format v0.1.
		out.MediaType = MediaTypeBundle + "+json;version=0.1"
	}
	var parsed *bundle.Bundle
	err = guarded(func() (err error) {
		parsed, err = bundle.NewBundle(out)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &signed{bundle: parsed, payload: claim, form: "cosign's older form"}, nil
}

// material collects what the annotations say about the signer, the log and the time.
func (b Bundle) material() (*protobundle.VerificationMaterial, error) {
	m := &protobundle.VerificationMaterial{
		Content: &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{}},
	}
	if text, ok := b.Annotations[annotationCertificate]; ok {
		block, rest := pem.Decode([]byte(text))
		if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) != 0 {
			return nil, fmt.Errorf("its annotation %s is not one certificate in PEM", annotationCertificate)
		}
		m.Content = &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: block.Bytes}}
	}
	if text, ok := b.Annotations[annotationRekor]; ok {
		entry, err := parseRekor([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("its annotation %s: %w", annotationRekor, err)
		}
		m.TlogEntries = []*protorekor.TransparencyLogEntry{entry}
	}
	if text, ok := b.Annotations[annotationTimestamp]; ok {
		var doc struct{ SignedRFC3161Timestamp []byte }
		if err := json.Unmarshal([]byte(text), &doc); err != nil {
			return nil, fmt.Errorf("its annotation %s: %w", annotationTimestamp, err)
		}
		m.TimestampVerificationData = &protobundle.TimestampVerificationData{
			Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: doc.SignedRFC3161Timestamp}},
		}
	}
	return m, nil
}

// parseRekor reads cosign's record of a transparency log entry.
func parseRekor(text []byte) (*protorekor.TransparencyLogEntry, error) {
	if err := checkJSON(text); err != nil {
		return nil, err
	}
	var doc struct {
		SignedEntryTimestamp []byte
		Payload              struct {
			Body           []byte `json:"body"`
			IntegratedTime int64  `json:"integratedTime"`
			LogIndex       int64  `json:"logIndex"`
			LogID          string `json:"logID"`
		}
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	logID, err := hex.DecodeString(doc.Payload.LogID)
	if err != nil {
		return nil, fmt.Errorf("logID: %w", err)
	}
	var kind struct {
		Kind       string `json:"kind"`
		APIVersion string `json:"apiVersion"`
	}
	if err := json.Unmarshal(doc.Payload.Body, &kind); err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	if len(doc.SignedEntryTimestamp) == 0 {
		return nil, errors.New("it has no signed entry timestamp")
	}
	return &protorekor.TransparencyLogEntry{
		LogIndex:          doc.Payload.LogIndex,
		LogId:             &protocommon.LogId{KeyId: logID},
		KindVersion:       &protorekor.KindVersion{Kind: kind.Kind, Version: kind.APIVersion},
		IntegratedTime:    doc.Payload.IntegratedTime,
		InclusionPromise:  &protorekor.InclusionPromise{SignedEntryTimestamp: doc.SignedEntryTimestamp},
		CanonicalizedBody: doc.Payload.Body,
	}, nil
}
