package ociimage

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/powernode/powernode-agent/internal/fault"
)

// BlobMax is the largest blob that Blob reads, in bytes.
const BlobMax = 64 << 30

// Document returns the manifest or index of that digest, and its media type. Its bytes have the digest.
func (c *Client) Document(ctx context.Context, repository string, d digest.Digest) (mediaType string, b []byte, err error) {
	if b, err = c.document(ctx, repository, d); err != nil {
		return "", nil, err
	}
	if mediaType, err = documentType(b); err != nil {
		return "", nil, malformedDocument("manifest", d, err)
	}
	return mediaType, b, nil
}

// Blob reads a blob from a registry, of which broken connections don't show. It ends after the descriptor's size, whatever the registry
// sends. Whoever reads it checks the digest. It asks for nothing before the first read.
func (c *Client) Blob(ctx context.Context, repository string, d ocispec.Descriptor) (io.ReadCloser, error) {
	if err := checkDescriptor(d, BlobMax); err != nil {
		return nil, fault.New(fault.Refuse, fault.Verify, "build and publish the module again", "fetch blob of %s: %w", repository, err)
	}
	r, err := c.repository(repository)
	if err != nil {
		return nil, err
	}
	return c.newDownload(ctx, r, d), nil
}

// IsNotFound reports whether err says that a registry doesn't have what it was asked for.
func IsNotFound(err error) bool { return isNotFound(err) }
