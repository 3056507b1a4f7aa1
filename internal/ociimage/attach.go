package ociimage

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Signature is a signature to be attached to an image.
type Signature struct {
	// MediaType is MediaTypeBundle or MediaTypeSimpleSigning; it decides how it is attached.
	MediaType string
	// Data is the bundle, or the payload.
	Data []byte
	// Annotations stand where cosign looks for them: for a bundle on the manifest that refers
	// to the image (dev.sigstore.bundle.content and .predicateType; org.opencontainers.image.created
	// if wanted), for a payload on the layer that holds it (dev.cosignproject.cosign/signature).
	Annotations map[string]string
}

// target is where manifests and small blobs can be put: a layout, or a repository.
type target interface {
	putBlob(ctx context.Context, d ocispec.Descriptor, b []byte) error
	// putManifest puts a manifest, under a tag if that is not empty.
	putManifest(ctx context.Context, d ocispec.Descriptor, b []byte, tag string) error
	// tagged returns the manifest under a tag; ok says whether there is one.
	tagged(ctx context.Context, tag string) (b []byte, ok bool, err error)
}

// attach puts a signature of the manifest subject where cosign would.
func attach(ctx context.Context, to target, subject ocispec.Descriptor, s Signature) error {
	if s.MediaType == MediaTypeSimpleSigning {
		return attachOlder(ctx, to, subject, s)
	}
	return attachBundle(ctx, to, subject, s)
}

// attachBundle makes a manifest that refers to the subject, as cosign 3 does: artifactType the
// bundle's type, the empty config, the bundle as the one layer.
func attachBundle(ctx context.Context, to target, subject ocispec.Descriptor, s Signature) error {
	data := describe(s.MediaType, s.Data)
	config := ocispec.DescriptorEmptyJSON
	config.Data = nil
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: s.MediaType,
		Config:       config,
		Layers:       []ocispec.Descriptor{data},
		Subject:      &ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size},
		Annotations:  s.Annotations,
	}
	b, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	if err := to.putBlob(ctx, config, []byte("{}")); err != nil {
		return err
	}
	if err := to.putBlob(ctx, data, s.Data); err != nil {
		return err
	}
	d := describe(manifest.MediaType, b)
	d.ArtifactType = s.MediaType
	return to.putManifest(ctx, d, b, "")
}

// attachOlder adds a layer to the image tagged sha256-<hex>.sig, as cosign 2 does. A layer that is
// there already is not added again.
func attachOlder(ctx context.Context, to target, subject ocispec.Descriptor, s Signature) error {
	tag := referrersTag(subject.Digest) + simpleSigningSuffix
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	old, ok, err := to.tagged(ctx, tag)
	if err != nil {
		return err
	}
	if ok {
		if err := json.Unmarshal(old, &manifest); err != nil {
			return malformedDocument("signature manifest", digest.FromBytes(old), err)
		}
		if len(manifest.Layers) >= attachedMax {
			return malformedDocument("signature manifest", digest.FromBytes(old), fmt.Errorf("it has %d signatures already", len(manifest.Layers)))
		}
	}
	data := describe(s.MediaType, s.Data)
	data.Annotations = s.Annotations
	if slices.ContainsFunc(manifest.Layers, func(l ocispec.Descriptor) bool {
		return l.Digest == data.Digest && maps.Equal(l.Annotations, data.Annotations)
	}) {
		return nil
	}
	manifest.Layers = append(manifest.Layers, data)
	config, err := olderConfig(manifest.Layers)
	if err != nil {
		return err
	}
	manifest.Config = describe(ocispec.MediaTypeImageConfig, config)
	b, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	if err := to.putBlob(ctx, manifest.Config, config); err != nil {
		return err
	}
	if err := to.putBlob(ctx, data, s.Data); err != nil {
		return err
	}
	return to.putManifest(ctx, describe(manifest.MediaType, b), b, tag)
}

// olderConfig makes a config that agrees with the layers: registries and tools take the manifest
// for that of an image.
func olderConfig(layers []ocispec.Descriptor) ([]byte, error) {
	config := ocispec.Image{RootFS: ocispec.RootFS{Type: "layers"}}
	for _, l := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.Digest)
	}
	return json.Marshal(config)
}

// Attach adds a signature of the image to the layout.
func (l *Layout) Attach(ctx context.Context, image *Image, s Signature) error {
	if err := attach(ctx, l, image.Descriptor(), s); err != nil {
		return fmt.Errorf("attach signature to %s in OCI layout %s: %w", image.Digest, l.path, err)
	}
	return nil
}

// Attach adds a signature of the image to a repository that holds the image.
func (c *Client) Attach(ctx context.Context, repository string, image *Image, s Signature) error {
	to, err := c.target(repository)
	if err != nil {
		return err
	}
	if err := attach(ctx, to, image.Descriptor(), s); err != nil {
		return fmt.Errorf("attach signature to %s@%s: %w", repository, image.Digest, err)
	}
	return nil
}
