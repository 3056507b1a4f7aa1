package ociimage

import (
	"context"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/layer"
)

// Source is where images come from: a *Client (registries) or a *Layout.
type Source interface {
	// Resolve finds an image and reads its manifest and config. arch is a GOARCH; "" takes an
	// image of any architecture if there is but one.
	Resolve(ctx context.Context, ref Reference, arch string) (*Image, error)
	// Attached finds what may be signatures of the image, or of the index it was chosen from.
	Attached(ctx context.Context, image *Image) (Attachments, error)
	// openLayer opens a layer's bytes from offset. Less than what d says may come before EOF;
	// the caller checks.
	openLayer(ctx context.Context, image *Image, d layer.Descriptor, offset int64) (io.ReadCloser, error)
	// resumable says whether it is worth keeping half a layer.
	resumable() bool
}

// documents is how a Source reads whole small things. They come back checked against their
// descriptors.
type documents interface {
	// document returns a manifest or index by digest; its size is known only to be within
	// documentMax.
	document(ctx context.Context, repository string, d digest.Digest) ([]byte, error)
	// blob returns a blob of up to max bytes.
	blob(ctx context.Context, repository string, d ocispec.Descriptor, max int64) ([]byte, error)
}

// resolve goes from a manifest or index to an image for arch.
func resolve(ctx context.Context, from documents, repository string, doc []byte, arch string) (*Image, error) {
	sum := digest.FromBytes(doc)
	mediaType, err := documentType(doc)
	if err != nil {
		return nil, malformedDocument("manifest", sum, err)
	}
	var index *Index
	if isIndexType(mediaType) {
		index = &Index{Digest: sum, MediaType: mediaType, Bytes: doc}
		d, err := choose(doc, sum, arch)
		if err != nil {
			return nil, err
		}
		if doc, err = from.document(ctx, repository, d.Digest); err != nil {
			return nil, err
		}
		if mediaType, err = documentType(doc); err != nil || isIndexType(mediaType) || int64(len(doc)) != d.Size {
			return nil, malformedDocument("index", sum, fmt.Errorf("%s is not the manifest that it lists", d.Digest))
		}
	}
	m, err := parseManifest(doc)
	if err != nil {
		return nil, malformedDocument("manifest", digest.FromBytes(doc), err)
	}
	config, err := from.blob(ctx, repository, m.Config, documentMax)
	if err != nil {
		return nil, err
	}
	image, err := ParseImage(doc, config)
	if err != nil {
		return nil, err
	}
	if image.OS != "linux" && image.OS != "" {
		return nil, fault.New(fault.Refuse, fault.Input, "publish a Linux image", "image %s is for the operating system %.40q", image.Digest, image.OS)
	}
	if !fits(arch, image.Architecture) {
		return nil, otherArchitecture(image.Digest, arch, []string{image.Architecture})
	}
	image.Repository, image.Index = repository, index
	return image, nil
}
