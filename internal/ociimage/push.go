package ociimage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cenkalti/backoff/v5"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Tag gives a tag to a manifest or index that a repository holds already.
func (c *Client) Tag(ctx context.Context, repository, tag, mediaType string, manifest []byte) error {
	to, err := c.target(repository)
	if err != nil {
		return err
	}
	return to.putManifest(ctx, describe(mediaType, manifest), manifest, tag)
}

// repositoryTarget is a repository as a place to put things.
type repositoryTarget struct {
	client *Client
	name   string
	remote *remote.Repository
	// blobs is the same without repetitions of its own: putStream repeats a blob as a whole.
	blobs *remote.Repository
}

func (c *Client) target(repository string) (*repositoryTarget, error) {
	r, err := c.repository(repository)
	if err != nil {
		return nil, err
	}
	blobs := &remote.Repository{Reference: r.Reference, Client: c.once, PlainHTTP: c.options.PlainHTTP, MaxMetadataBytes: documentMax}
	return &repositoryTarget{client: c, name: repository, remote: r, blobs: blobs}, nil
}

// Push copies an image from a layout to a repository, and gives it a tag if ref has one. Blobs
// that are there already are not sent again. progress may be nil; it is as in PullOptions.
func (c *Client) Push(ctx context.Context, from *Layout, image *Image, ref Reference, progress func(index int, done, total int64)) error {
	if ref.Digest != "" && ref.Digest != image.Digest {
		return fault.New(fault.Refuse, fault.Input, "leave the digest out", "push image %s as %s: the digests differ", image.Digest, ref)
	}
	to, err := c.target(ref.Repository)
	if err != nil {
		return err
	}
	if err := to.push(ctx, from, image, ref.Tag, progress); err != nil {
		return fmt.Errorf("push image %s to %s: %w", image.Digest, ref.Repository, err)
	}
	return nil
}

func (t *repositoryTarget) push(ctx context.Context, from *Layout, image *Image, tag string, progress func(int, int64, int64)) error {
	m, err := parseManifest(image.Manifest)
	if err != nil {
		return malformedDocument("manifest", image.Digest, err)
	}
	group, layersCtx := errgroup.WithContext(ctx)
	group.SetLimit(3)
	for i, d := range m.Layers {
		group.Go(func() error {
			report := func(done int64) {
				if progress != nil {
					progress(i, done, d.Size)
				}
			}
			return t.putStream(layersCtx, d, func() (io.ReadCloser, error) {
				file, size, err := from.openBlob(d.Digest)
				if err == nil && size != d.Size {
					err = errors.Join(from.damaged(d.Digest, "it has %d bytes, not %d", size, d.Size), file.Close())
				}
				return file, err
			}, report)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := t.putBlob(ctx, m.Config, image.Config); err != nil {
		return err
	}
	return t.putManifest(ctx, image.Descriptor(), image.Manifest, tag)
}

// putStream sends a blob unless it is there, and sends it again from the beginning when that
// failed for reasons that may pass.
func (t *repositoryTarget) putStream(ctx context.Context, d ocispec.Descriptor, open func() (io.ReadCloser, error), report func(done int64)) error {
	report(0)
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := t.send(ctx, d, open, report)
		if err != nil && fault.KindOf(err) != fault.Retry {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(t.client.newBackOff()), backoff.WithMaxTries(uint(t.client.options.Retry.Attempts)), backoff.WithMaxElapsedTime(0))
	if err == nil {
		report(d.Size)
	}
	return err
}

func (t *repositoryTarget) send(ctx context.Context, d ocispec.Descriptor, open func() (io.ReadCloser, error), report func(done int64)) error {
	doing := fmt.Sprintf("upload %s to %s", d.Digest, t.name)
	there, err := t.blobs.Blobs().Exists(ctx, d)
	if err != nil {
		return classify(err, t.remote.Reference.Registry, doing)
	}
	if there {
		return nil
	}
	file, err := open()
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // only read from
	return classify(t.blobs.Blobs().Push(ctx, d, &counter{r: file, report: report}), t.remote.Reference.Registry, doing)
}

func (t *repositoryTarget) putBlob(ctx context.Context, d ocispec.Descriptor, b []byte) error {
	return t.putStream(ctx, d, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }, func(int64) {})
}

func (t *repositoryTarget) putManifest(ctx context.Context, d ocispec.Descriptor, b []byte, tag string) error {
	name := tag
	if name == "" {
		name = string(d.Digest)
	}
	// The library lists a manifest that refers to another under the fallback tag where the
	// registry has no referrers API.
	err := t.remote.Manifests().PushReference(ctx, d, bytes.NewReader(b), name)
	return classify(err, t.remote.Reference.Registry, "upload manifest "+t.name+at(name))
}

func (t *repositoryTarget) tagged(ctx context.Context, tag string) ([]byte, bool, error) {
	b, err := t.client.tagged(ctx, t.name, tag)
	if isNotFound(err) {
		return nil, false, nil
	}
	return b, err == nil, err
}

// newBackOff returns the waiting times of one row of failures.
func (c *Client) newBackOff() *backoff.ExponentialBackOff {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval, wait.Multiplier = c.options.Retry.Min, c.options.Retry.Max, 2
	wait.Reset()
	return wait
}
