package ociimage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Media types of signatures, as cosign attaches them.
const (
	// MediaTypeBundle is that of a Sigstore bundle. Any version of it is found; this one is written.
	MediaTypeBundle = "application/vnd.dev.sigstore.bundle.v0.3+json"
	// MediaTypeSimpleSigning is that of the older form's payload.
	MediaTypeSimpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"

	bundleTypePrefix = "application/vnd.dev.sigstore.bundle"
	cosignArtifact   = "application/vnd.dev.cosign.artifact.sig.v1+json"
)

// Bounds for what a registry may make a node read in search of a signature.
const (
	attachedMax      = 64      // manifests looked into, and signatures found
	referrerPagesMax = 16      // pages of a listing
	signatureMax     = 1 << 20 // bytes of one signature
	signaturesMax    = 8 << 20 // bytes of all of them
)

// Attached is one signature as it was found, unjudged.
type Attached struct {
	// MediaType tells the form: a bundle's type, or MediaTypeSimpleSigning.
	MediaType string
	// Data is the bundle, or the payload of the older form.
	Data []byte
	// Annotations are those of the layer that held Data. The older form has its signature there
	// (dev.cosignproject.cosign/signature) and what belongs to it (dev.sigstore.cosign/bundle,
	// /certificate, /chain).
	Annotations map[string]string
	// Subject is the digest that it was attached to: the image's, or its index's.
	Subject digest.Digest
}

// IsBundle reports whether it is a Sigstore bundle.
func (a Attached) IsBundle() bool { return strings.HasPrefix(a.MediaType, bundleTypePrefix) }

// Attachments are the signatures that were found.
type Attachments struct {
	Found []Attached
	// PassedOver says of what looked like a signature why it was not read, for the report of a
	// verification that found none to its liking.
	PassedOver []error
}

// subject is what signatures are attached to.
type subject struct {
	repository string
	descriptor ocispec.Descriptor
}

// subjects returns the digests whose signature vouches for the image.
func subjects(image *Image) []subject {
	all := []subject{{image.Repository, image.Descriptor()}}
	if i := image.Index; i != nil {
		all = append(all, subject{image.Repository, ocispec.Descriptor{MediaType: i.MediaType, Digest: i.Digest, Size: int64(len(i.Bytes))}})
	}
	return all
}

// referrersTag is the tag of the index of referrers in registries without the referrers API (OCI
// distribution specification, "Referrers Tag Schema"); with ".sig" it is cosign's older form.
func referrersTag(d digest.Digest) string { return d.Algorithm().String() + "-" + d.Encoded() }

const simpleSigningSuffix = ".sig"

// mayBeSignature judges a referrer by the listing. cosign has written the type of the empty config
// in place of the artifact's own, and registries may leave it out.
func mayBeSignature(artifactType string) bool {
	switch artifactType {
	case "", ocispec.MediaTypeEmptyJSON, cosignArtifact, MediaTypeSimpleSigning:
		return true
	}
	return strings.HasPrefix(artifactType, bundleTypePrefix)
}

// gatherer collects signatures within bounds. Each place where signatures may be has bounds of its
// own, so that one that is flooded doesn't hide another.
type gatherer struct {
	from   documents
	seen   map[[2]digest.Digest]bool // subject and referrer
	result Attachments
	// Since the place was begun: manifests looked into, signatures found and their bytes.
	looked, found int
	bytes         int64
}

func newGatherer(from documents) *gatherer {
	return &gatherer{from: from, seen: make(map[[2]digest.Digest]bool)}
}

func (g *gatherer) begin() { g.looked, g.found, g.bytes = 0, 0, 0 }

func (g *gatherer) full() bool { return g.found >= attachedMax || g.bytes >= signaturesMax }

// passOver notes why something isn't a signature, unless that may be different next time or for
// somebody else.
func (g *gatherer) passOver(err error) error {
	if isNotFound(err) || fault.KindOf(err) == fault.Refuse && fault.AreaOf(err) == fault.Verify {
		g.result.PassedOver = append(g.result.PassedOver, err)
		return nil
	}
	return err
}

// referrer looks into a manifest that is said to refer to the subject.
func (g *gatherer) referrer(ctx context.Context, s subject, d ocispec.Descriptor) error {
	key := [2]digest.Digest{s.descriptor.Digest, d.Digest}
	if g.full() || g.looked >= attachedMax || g.seen[key] || !mayBeSignature(d.ArtifactType) {
		return nil
	}
	g.seen[key] = true
	g.looked++
	if !validDigest(d.Digest) {
		return g.passOver(malformedDocument("signature manifest", d.Digest, errors.New("it is listed with a digest that is none")))
	}
	doc, err := g.from.document(ctx, s.repository, d.Digest)
	if err != nil {
		return g.passOver(err)
	}
	return g.manifest(ctx, s, doc, true)
}

// manifest reads the signatures that a manifest holds. mustRefer says that it has to name the
// subject itself, as a referrer does; the older form says so by its tag alone, and its payload
// names the digest anyway.
func (g *gatherer) manifest(ctx context.Context, s subject, doc []byte, mustRefer bool) error {
	var m ocispec.Manifest
	sum := digest.FromBytes(doc)
	if err := json.Unmarshal(doc, &m); err != nil {
		return g.passOver(malformedDocument("signature manifest", sum, err))
	}
	if mustRefer && (m.Subject == nil || m.Subject.Digest != s.descriptor.Digest) {
		return g.passOver(malformedDocument("signature manifest", sum, fmt.Errorf("it does not refer to %s", s.descriptor.Digest)))
	}
	for _, l := range m.Layers {
		if l.MediaType != MediaTypeSimpleSigning && !strings.HasPrefix(l.MediaType, bundleTypePrefix) {
			continue
		}
		if g.full() {
			return nil
		}
		data, err := g.from.blob(ctx, s.repository, l, signatureMax)
		if err != nil {
			if err := g.passOver(err); err != nil {
				return err
			}
			continue
		}
		g.found++
		g.bytes += int64(len(data))
		g.result.Found = append(g.result.Found, Attached{MediaType: l.MediaType, Data: data, Annotations: l.Annotations, Subject: s.descriptor.Digest})
	}
	return nil
}
