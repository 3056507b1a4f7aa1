package ociimage

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/powernode/powernode-agent/internal/fault"
)

// PushIndex makes an index of images that were pushed to a repository, one for each architecture,
// and pushes it, under tag if that is not empty. The same images in the same order give the same bytes.
func (c *Client) PushIndex(ctx context.Context, repository, tag string, images []*Image, annotations map[string]string) (*Index, error) {
	to, err := c.target(repository)
	if err != nil {
		return nil, err
	}
	doc := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Annotations: annotations,
	}
	seen := make(map[string]bool)
	for _, image := range images {
		if seen[image.Architecture] {
			return nil, fault.New(fault.Refuse, fault.Input, "name one layout for each architecture",
				"push an index to %s: two images are for %s", repository, image.Architecture)
		}
		seen[image.Architecture] = true
		d := image.Descriptor()
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: image.Architecture, Variant: image.Variant}
		doc.Manifests = append(doc.Manifests, d)
	}
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	d := describe(doc.MediaType, b)
	if err := to.putManifest(ctx, d, b, tag); err != nil {
		return nil, fmt.Errorf("push index to %s: %w", repository, err)
	}
	return &Index{Digest: d.Digest, MediaType: d.MediaType, Bytes: b}, nil
}

// AttachToIndex adds a signature of an index to a repository that holds it.
func (c *Client) AttachToIndex(ctx context.Context, repository string, index *Index, s Signature) error {
	to, err := c.target(repository)
	if err != nil {
		return err
	}
	subject := ocispec.Descriptor{MediaType: index.MediaType, Digest: index.Digest, Size: int64(len(index.Bytes))}
	if err := attach(ctx, to, subject, s); err != nil {
		return fmt.Errorf("attach signature to %s@%s: %w", repository, index.Digest, err)
	}
	return nil
}
