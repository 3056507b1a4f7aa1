package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/powernode/powernode-agent/internal/platform/db"
)

const (
	// maxManifest is the largest manifest in bytes, as the distribution specification advises.
	maxManifest = 4 << 20
	// maxDescriptors bounds what one manifest refers to.
	maxDescriptors = 4096
)

// The media types of manifests. The value says whether it lists manifests instead of blobs.
var manifestTypes = map[string]bool{
	ocispec.MediaTypeImageManifest:                              false,
	ocispec.MediaTypeImageIndex:                                 true,
	"application/vnd.docker.distribution.manifest.v2+json":      false,
	"application/vnd.docker.distribution.manifest.list.v2+json": true,
	"application/vnd.oci.artifact.manifest.v1+json":             false,
}

func digestOf(s string) digest.Digest { return digest.Digest(s) }

// document is what the registry reads of a manifest, of any kind.
type document struct {
	SchemaVersion int                  `json:"schemaVersion"`
	MediaType     string               `json:"mediaType"`
	ArtifactType  string               `json:"artifactType"`
	Config        *ocispec.Descriptor  `json:"config"`
	Layers        []ocispec.Descriptor `json:"layers"`
	Blobs         []ocispec.Descriptor `json:"blobs"`
	Manifests     []ocispec.Descriptor `json:"manifests"`
	Subject       *ocispec.Descriptor  `json:"subject"`
	Annotations   map[string]string    `json:"annotations"`
}

// putManifest keeps a manifest whose parts are there already: its bytes are durable before its
// row in the index is, and its parts are looked for before its bytes are kept, and again as its row is.
func (g *Registry) putManifest(w http.ResponseWriter, r *http.Request, t target) error {
	data, err := io.ReadAll(io.LimitReader(r.Body, maxManifest+1))
	if err != nil {
		return refuse(http.StatusBadRequest, codeManifestInvalid, "the manifest ended early: %v", err)
	}
	if len(data) > maxManifest {
		return refuse(http.StatusRequestEntityTooLarge, codeSizeInvalid, "a manifest of more than %d bytes", maxManifest)
	}
	m := db.Manifest{Repository: t.repository, Digest: sumLike(t.reference, data), Size: int64(len(data))}
	tag := t.reference
	if strings.Contains(tag, ":") {
		if tag != m.Digest {
			return refuse(http.StatusBadRequest, codeDigestInvalid, "the manifest's digest is %s, not %s", m.Digest, tag)
		}
		tag = ""
	}
	doc, err := parseManifest(r.Header.Get("Content-Type"), data)
	if err != nil {
		return err
	}
	m.MediaType = doc.MediaType
	m.Parts = doc.parts()
	if err := g.checkParts(r.Context(), t.repository, m.Parts); err != nil {
		return err
	}
	if doc.Subject != nil {
		if err := doc.asReferrer(&m); err != nil {
			return err
		}
		w.Header().Set("OCI-Subject", m.Subject)
	}
	if err := g.blobs.put(data, m.Digest); err != nil {
		return err
	}
	if err := g.putInto(r.Context(), m, tag, doc); err != nil {
		return err
	}
	w.Header().Set("Location", Root+t.repository+"/manifests/"+m.Digest)
	w.Header().Set("Docker-Content-Digest", m.Digest)
	w.WriteHeader(http.StatusCreated)
	return nil
}

// parseManifest reads a manifest and returns it with its media type filled in.
func parseManifest(contentType string, data []byte) (document, error) {
	invalid := func(format string, args ...any) (document, error) {
		return document{}, refuse(http.StatusBadRequest, codeManifestInvalid, format, args...)
	}
	mediaType, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return invalid("Content-Type %.200q: %v", contentType, err)
	}
	lists, known := manifestTypes[mediaType]
	if !known {
		return invalid("Content-Type %.200s is no manifest that this registry knows", mediaType)
	}
	var doc document
	if err := json.Unmarshal(data, &doc); err != nil {
		return invalid("the manifest isn't valid JSON: %v", err)
	}
	switch {
	case doc.MediaType != "" && doc.MediaType != mediaType:
		return invalid("the manifest says that it is %.200s, and the request says %s", doc.MediaType, mediaType)
	case doc.SchemaVersion != 2 && !strings.Contains(mediaType, "artifact"):
		return invalid("schemaVersion %d: want 2", doc.SchemaVersion)
	// A document that is both a manifest and an index reads differently to different clients.
	case lists && (doc.Config != nil || doc.Layers != nil || doc.Blobs != nil), !lists && doc.Manifests != nil:
		return invalid("the manifest holds the fields of another kind of manifest")
	case mediaType == ocispec.MediaTypeImageManifest && doc.Config == nil:
		return invalid("an image manifest needs a config")
	case len(doc.Layers)+len(doc.Blobs)+len(doc.Manifests) > maxDescriptors:
		return invalid("more than %d descriptors", maxDescriptors)
	}
	for _, list := range [][]ocispec.Descriptor{doc.Layers, doc.Blobs, doc.Manifests} {
		for _, d := range list {
			if !served(string(d.Digest)) || d.Size < 0 {
				return invalid("descriptor %.200q of %d bytes: want a sha256 or sha512 digest and a size", d.Digest, d.Size)
			}
		}
	}
	for _, d := range []*ocispec.Descriptor{doc.Config, doc.Subject} {
		if d != nil && (!served(string(d.Digest)) || d.Size < 0) {
			return invalid("descriptor %.200q of %d bytes: want a sha256 or sha512 digest and a size", d.Digest, d.Size)
		}
	}
	doc.MediaType = mediaType
	return doc, nil
}

// asReferrer fills in what the referrers API tells of a manifest with a subject (distribution
// specification, "Listing Referrers"): an artifact without a type has its config's.
func (doc document) asReferrer(m *db.Manifest) error {
	m.Subject = string(doc.Subject.Digest)
	m.ArtifactType = doc.ArtifactType
	if m.ArtifactType == "" && doc.Config != nil {
		m.ArtifactType = doc.Config.MediaType
	}
	if len(doc.Annotations) == 0 {
		return nil
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(doc.Annotations); err != nil {
		return errors.Join(errors.New("encode annotations"), err)
	}
	m.Annotations = strings.TrimSpace(text.String())
	return nil
}
