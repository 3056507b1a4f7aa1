package ociimage

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/powernode/powernode-agent/internal/module"
)

// withoutTwins returns the sealed one alone of several manifests that are one image, with the same
// config and the same layers, in different annotations: Annotate adds it to a layout in which
// another builder's image stays under its own name. Others it returns as they are. Of several that
// have a seal it takes the one that was listed last, which is the one that Annotate added.
func (l *Layout) withoutTwins(ctx context.Context, found []ocispec.Descriptor, arch string) []ocispec.Descriptor {
	if len(found) < 2 {
		return found
	}
	sealed := -1
	var first string
	for i, d := range found {
		content, hasSeal, err := l.contentOf(ctx, d.Digest, arch)
		// What can't be read isn't known to be a twin; whoever chooses it hears why.
		if err != nil || i > 0 && content != first {
			return found
		}
		first = content
		if hasSeal {
			sealed = i
		}
	}
	if sealed < 0 {
		return found
	}
	return slices.Clone(found[sealed : sealed+1])
}

// contentOf says what an image consists of, in a form to compare, and whether it claims a seal.
func (l *Layout) contentOf(ctx context.Context, d digest.Digest, arch string) (content string, hasSeal bool, err error) {
	doc, err := l.document(ctx, "", d)
	if err != nil {
		return "", false, err
	}
	image, err := resolve(ctx, l, "", doc, arch)
	if err != nil {
		return "", false, err
	}
	content = digest.FromBytes(image.Config).String()
	for _, layer := range image.Layers {
		content += " " + string(layer.Digest)
	}
	return content, image.Annotations[module.AnnotationSeal] != "", nil
}
