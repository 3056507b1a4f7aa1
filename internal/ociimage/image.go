package ociimage

import (
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/layer"
	"github.com/powernode/powernode-agent/internal/module"
)

// What docker writes in place of the OCI types. Such images can be read, to be built upon.
const (
	dockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	dockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig       = "application/vnd.docker.container.image.v1+json"
)

const (
	// documentMax bounds manifests, indexes and configs, as the OCI distribution specification
	// bounds manifests.
	documentMax = 4 << 20
	// layersMax bounds the layers of an image: docker's and overlayfs's old limit, which
	// builders keep to.
	layersMax = 128
)

// Image is one image of one architecture: the documents, checked against each other.
type Image struct {
	// Repository is where it was found, host[:port]/path; empty in a layout.
	Repository string
	// Digest is the sha256 of Manifest, and MediaType its type.
	Digest    digest.Digest
	MediaType string
	// Manifest and Config are the documents' bytes.
	Manifest, Config []byte
	// Annotations are the manifest's, Labels the config's.
	Annotations, Labels map[string]string
	// Layers are bottom first.
	Layers []layer.Descriptor
	// OS, Architecture and Variant are the config's, in the words of Go's GOOS and GOARCH.
	OS, Architecture, Variant string
	// Index is the index that the image was chosen from, or nil.
	Index *Index
}

// Index is an image index. Its bytes name the image's digest, so that a signature of it vouches
// for the image too.
type Index struct {
	Digest    digest.Digest
	MediaType string
	Bytes     []byte
}

// Seal returns the seal that the manifest claims.
func (i *Image) Seal() (fsverity.Digest, error) {
	text, ok := i.Annotations[module.AnnotationSeal]
	if !ok {
		return fsverity.Digest{}, fault.New(fault.Refuse, fault.Verify, "publish it with powernode module publish, which seals it",
			"image %s has no seal: its manifest lacks the annotation %s", i.Digest, module.AnnotationSeal)
	}
	seal, err := fsverity.ParseDigest(text)
	if err != nil || seal.IsZero() {
		return fsverity.Digest{}, fault.New(fault.Refuse, fault.Verify, "seal and publish it again",
			"image %s has a seal that is none: %.80q", i.Digest, text)
	}
	return seal, nil
}

// Size returns the bytes of all layers, compressed.
func (i *Image) Size() int64 {
	var sum int64
	for _, l := range i.Layers {
		sum += l.Size
	}
	return sum
}

// Descriptor returns the manifest's descriptor.
func (i *Image) Descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: i.MediaType, Digest: i.Digest, Size: int64(len(i.Manifest))}
}

// ParseImage reads an image's documents and checks that the config is the one that the manifest
// names and that both are about the same layers.
func ParseImage(manifest, config []byte) (*Image, error) {
	sum := digest.FromBytes(manifest)
	m, err := parseManifest(manifest)
	if err != nil {
		return nil, malformedDocument("manifest", sum, err)
	}
	if m.Config.Size != int64(len(config)) || m.Config.Digest != digest.FromBytes(config) {
		return nil, malformedDocument("manifest", sum, fmt.Errorf("its config is %s, not this one", m.Config.Digest))
	}
	var c ocispec.Image
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, malformedDocument("config", m.Config.Digest, err)
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return nil, malformedDocument("config", m.Config.Digest,
			fmt.Errorf("it has %d diff_ids for the manifest's %d layers", len(c.RootFS.DiffIDs), len(m.Layers)))
	}
	image := &Image{
		Digest: sum, MediaType: m.MediaType, Manifest: manifest, Config: config,
		Annotations: m.Annotations, Labels: c.Config.Labels,
		OS: c.OS, Architecture: c.Architecture, Variant: c.Variant,
	}
	for i, d := range m.Layers {
		if !validDigest(c.RootFS.DiffIDs[i]) {
			return nil, malformedDocument("config", m.Config.Digest, fmt.Errorf("diff_id %.100q is no sha256 digest", c.RootFS.DiffIDs[i]))
		}
		image.Layers = append(image.Layers, layer.Descriptor{
			MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, DiffID: c.RootFS.DiffIDs[i],
		})
	}
	if d, ok := contradiction(image.Layers); ok {
		return nil, malformedDocument("manifest", sum, fmt.Errorf("it says two things of layer %s", d))
	}
	return image, nil
}

// contradiction finds a layer that is listed more than once, and not always as the same. Whoever
// fetches layers by digest may rely on there being one truth about each.
func contradiction(layers []layer.Descriptor) (digest.Digest, bool) {
	said := make(map[digest.Digest]layer.Descriptor, len(layers))
	for _, d := range layers {
		if before, ok := said[d.Digest]; ok && before != d {
			return d.Digest, true
		}
		said[d.Digest] = d
	}
	return "", false
}

func parseManifest(b []byte) (*ocispec.Manifest, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	if m.MediaType == "" {
		m.MediaType = ocispec.MediaTypeImageManifest
	}
	switch m.Config.MediaType {
	case ocispec.MediaTypeImageConfig, dockerConfig:
	default:
		return nil, fmt.Errorf("it is no image: its config is of type %.100q", m.Config.MediaType)
	}
	if err := checkDescriptor(m.Config, documentMax); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if n := len(m.Layers); n == 0 || n > layersMax {
		return nil, fmt.Errorf("it has %d layers: 1 to %d are possible", n, layersMax)
	}
	for _, d := range m.Layers {
		if !layer.KnownMediaType(d.MediaType) {
			return nil, fmt.Errorf("layer %s: %.100q is no type of a tar layer", d.Digest, d.MediaType)
		}
		if err := checkDescriptor(d, 1<<50); err != nil {
			return nil, fmt.Errorf("layer: %w", err)
		}
	}
	return &m, nil
}

// checkDescriptor checks what must hold before anything is fetched by d.
func checkDescriptor(d ocispec.Descriptor, sizeMax int64) error {
	switch {
	case !validDigest(d.Digest):
		return fmt.Errorf("digest %.100q is not sha256: and 64 hexadecimal digits", d.Digest)
	case d.Size < 0 || d.Size > sizeMax:
		return fmt.Errorf("%s: a size of %d bytes is out of bounds (0 to %d)", d.Digest, d.Size, sizeMax)
	}
	return nil
}

func malformedDocument(what string, sum digest.Digest, err error) error {
	return fault.New(fault.Refuse, fault.Verify, "build and publish the module again", "image %s %s: %w", what, sum, err)
}

// documentType tells an index from a manifest by the document itself: the registry's Content-Type
// isn't covered by any digest (CVE-2021-41190).
func documentType(b []byte) (mediaType string, err error) {
	var doc struct {
		MediaType string            `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
		Layers    []json.RawMessage `json:"layers"`
		Config    json.RawMessage   `json:"config"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return "", err
	}
	isIndex, isManifest := doc.Manifests != nil, doc.Layers != nil || doc.Config != nil
	switch doc.MediaType {
	case "":
		if isIndex {
			doc.MediaType = ocispec.MediaTypeImageIndex
		} else {
			doc.MediaType = ocispec.MediaTypeImageManifest
		}
	case ocispec.MediaTypeImageIndex, dockerManifestList, ocispec.MediaTypeImageManifest, dockerManifest:
	default:
		return "", fmt.Errorf("%.100q is the type of neither a manifest nor an index", doc.MediaType)
	}
	if isIndex == isManifest || isIndex != isIndexType(doc.MediaType) {
		return "", fmt.Errorf("it is not clear whether it is a manifest or an index")
	}
	return doc.MediaType, nil
}

func isIndexType(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == dockerManifestList
}
