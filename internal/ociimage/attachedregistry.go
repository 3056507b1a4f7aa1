package ociimage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"

	"github.com/powernode/powernode-agent/internal/fault"
)

// Attached finds signatures in each of the places where cosign puts them: OCI referrers, the
// fallback tag of registries without that API, and the tag sha256-<hex>.sig. What is damaged or
// isn't there is passed over; an error means that the search itself failed, and that there may be
// more signatures than were found.
func (c *Client) Attached(ctx context.Context, image *Image) (Attachments, error) {
	g := newGatherer(c)
	for _, s := range subjects(image) {
		if err := c.gather(ctx, g, s); err != nil {
			return Attachments{}, fmt.Errorf("look for signatures of %s@%s: %w", s.repository, s.descriptor.Digest, err)
		}
	}
	return g.result, nil
}

func (c *Client) gather(ctx context.Context, g *gatherer, s subject) error {
	before := len(g.result.Found)
	g.begin()
	if err := c.gatherReferrers(ctx, g, s); err != nil {
		return err
	}
	tag := referrersTag(s.descriptor.Digest)
	// A registry that learned the API later may know older referrers by the tag alone.
	if len(g.result.Found) == before {
		if err := c.gatherTag(ctx, g, s, tag, c.gatherFallback); err != nil {
			return err
		}
	}
	g.begin()
	return c.gatherTag(ctx, g, s, tag+simpleSigningSuffix, func(ctx context.Context, g *gatherer, s subject, doc []byte) error {
		return g.manifest(ctx, s, doc, false)
	})
}

// errEnough ends a listing early.
var errEnough = errors.New("enough")

func (c *Client) gatherReferrers(ctx context.Context, g *gatherer, s subject) error {
	r, err := c.repository(s.repository)
	if err != nil {
		return err
	}
	var failed error
	err = r.Referrers(ctx, s.descriptor, "", func(page []ocispec.Descriptor) error {
		for _, d := range page {
			if failed = g.referrer(ctx, s, d); failed != nil {
				return failed
			}
		}
		if g.full() || g.looked >= attachedMax {
			return errEnough
		}
		return nil
	})
	switch {
	case failed != nil:
		return failed
	case err == nil, errors.Is(err, errEnough), errors.Is(err, errdef.ErrTooManyPages):
		return nil
	}
	err = classify(err, r.Reference.Registry, "list referrers")
	if fault.KindOf(err) != fault.Refuse {
		return err
	}
	// Registries without the API answer in many ways. If this one means it, it will say the same
	// when asked for the tags.
	g.result.PassedOver = append(g.result.PassedOver, err)
	return nil
}

// gatherTag reads what a tag names, if there is such a tag.
func (c *Client) gatherTag(ctx context.Context, g *gatherer, s subject, tag string, read func(context.Context, *gatherer, subject, []byte) error) error {
	doc, err := c.tagged(ctx, s.repository, tag)
	switch {
	case isNotFound(err):
		return nil
	case err != nil:
		return g.passOver(err)
	// Some registries resolve a tag of this form to the image itself.
	case digest.FromBytes(doc) == s.descriptor.Digest:
		return nil
	}
	return read(ctx, g, s, doc)
}

// gatherFallback reads an index of referrers.
func (c *Client) gatherFallback(ctx context.Context, g *gatherer, s subject, doc []byte) error {
	var index ocispec.Index
	if err := json.Unmarshal(doc, &index); err != nil {
		return g.passOver(malformedDocument("referrers index", digest.FromBytes(doc), err))
	}
	// Whatever else somebody put under the tag lists no manifests that refer to the subject.
	for _, d := range index.Manifests {
		if err := g.referrer(ctx, s, d); err != nil {
			return err
		}
	}
	return nil
}
