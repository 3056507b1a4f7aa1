package ociimage

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/powernode/powernode-agent/internal/layer"
)

// Annotate adds an image to the layout that differs from one that is there in its annotations
// alone, and returns it: how any builder's image is sealed. Annotations with an empty value are
// removed. Config and layers stay as they are, whatever is in them, but for a docker image, whose
// types become the OCI ones, since its own kind of manifest has no annotations. The new image is
// listed under tag, in place of what had it.
func (l *Layout) Annotate(image *Image, annotations map[string]string, tag string) (*Image, error) {
	annotated, err := l.annotate(image, annotations, tag)
	if err != nil {
		return nil, fmt.Errorf("annotate image %s in OCI layout %s: %w", image.Digest, l.path, err)
	}
	return annotated, nil
}

func (l *Layout) annotate(image *Image, annotations map[string]string, tag string) (*Image, error) {
	m, err := parseManifest(image.Manifest)
	if err != nil {
		return nil, malformedDocument("manifest", image.Digest, err)
	}
	all := maps.Clone(m.Annotations)
	if all == nil {
		all = make(map[string]string, len(annotations))
	}
	maps.Copy(all, annotations)
	maps.DeleteFunc(all, func(_, value string) bool { return value == "" })
	m.Annotations = all
	m.MediaType = ocispec.MediaTypeImageManifest
	m.Config.MediaType = ocispec.MediaTypeImageConfig
	for i := range m.Layers {
		m.Layers[i].MediaType = layer.OCIMediaType(m.Layers[i].MediaType)
	}
	b, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	annotated, err := ParseImage(b, image.Config)
	if err != nil {
		return nil, err
	}
	d := annotated.Descriptor()
	d.Platform = &ocispec.Platform{OS: "linux", Architecture: annotated.Architecture, Variant: annotated.Variant}
	return annotated, l.putManifest(context.Background(), d, b, tag)
}
