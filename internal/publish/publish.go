// Package publish brings a module that was built into a registry: it seals the image, pushes it,
// and attaches the signatures.
//
// It promises that what it signs is what it sealed: the seal is computed from the layers
// themselves, and the manifest that carries it is the one that is pushed and signed. Publishing
// the same layout again pushes the same bytes. It trusts its caller for the layout's content and
// the key; the registry gets digests that it can't change unnoticed.
package publish

import (
	"context"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/layer"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/signing"
)

// Options say what to publish where.
type Options struct {
	// Layouts hold the module, one layout for each architecture, each with one image.
	Layouts []*ociimage.Layout
	Client  *ociimage.Client
	// Repository is "host/path". The tag is the module's version.
	Repository string
	Key        *signing.Key
	// Approve is asked, if it isn't nil, once everything is sealed and nothing is pushed yet. What
	// it is shown has no Digest.
	Approve func(Published) error
	// Progress is told of an upload of total bytes that begins, and returns what to tell of n more
	// bytes and of the end; nil shows nothing.
	Progress func(name string, total int64) (add func(n int64), done func(error))
}

// Published is a module in a registry.
type Published struct {
	Name       string  `json:"name"`
	Version    string  `json:"version"`
	Repository string  `json:"repository"`
	Tag        string  `json:"tag"`
	KeyID      string  `json:"key_id"`
	Images     []Image `json:"images"`
	// Digest is what to assign: the image's, or that of the index where there are several.
	Digest string `json:"digest"`
	// BeyondSealingSpec are extended attributes with which other tools compute another seal.
	BeyondSealingSpec []string `json:"beyond_sealing_spec,omitempty"`
}

// Image is the module for one architecture.
type Image struct {
	Architecture string          `json:"architecture"`
	Digest       string          `json:"digest"`
	Seal         fsverity.Digest `json:"seal"`
	Layers       int             `json:"layers"`
	// Bytes is the size of the layers, compressed.
	Bytes int64 `json:"bytes"`
	Files int64 `json:"files"`
}

// Publish seals, pushes, signs and tags. Everything is sealed and looked at before anything is
// pushed, and the tag is set once everything is there, the signatures too: a failure before that
// leaves at most blobs, manifests and signatures of a version that the version's tag doesn't name.
func Publish(ctx context.Context, o Options) (Published, error) {
	if o.Progress == nil {
		o.Progress = func(string, int64) (func(int64), func(error)) { return func(int64) {}, func(error) {} }
	}
	p, images, err := sealAll(ctx, o)
	if err != nil {
		return Published{}, err
	}
	if o.Approve != nil {
		if err := o.Approve(p); err != nil {
			return Published{}, err
		}
	}
	for i, layout := range o.Layouts {
		if err := push(ctx, o, p, layout, images[i]); err != nil {
			return Published{}, err
		}
	}
	sum, mediaType, manifest := images[0].Digest, images[0].MediaType, images[0].Manifest
	if len(images) > 1 {
		index, err := pushIndex(ctx, o, p, images)
		if err != nil {
			return Published{}, err
		}
		sum, mediaType, manifest = index.Digest, index.MediaType, index.Bytes
	}
	if err := o.Client.Tag(ctx, o.Repository, p.Tag, mediaType, manifest); err != nil {
		return Published{}, err
	}
	p.Digest = string(sum)
	return p, nil
}

// sealAll seals the image of each layout, and checks that they are one module for different
// architectures.
func sealAll(ctx context.Context, o Options) (Published, []*ociimage.Image, error) {
	p := Published{Repository: o.Repository, KeyID: o.Key.ID()}
	if len(o.Layouts) == 0 {
		return p, nil, fault.New(fault.Refuse, fault.Input, "name an OCI layout", "there is nothing to publish")
	}
	var images []*ociimage.Image
	for _, layout := range o.Layouts {
		sealed, info, beyond, err := seal(ctx, layout)
		if err != nil {
			return p, nil, err
		}
		name, version := sealed.Annotations[module.AnnotationName], sealed.Annotations[module.AnnotationVersion]
		if p.Name == "" {
			p.Name, p.Version, p.Tag = name, version, module.VersionTag(version)
		} else if p.Name != name || p.Version != version {
			return p, nil, fault.New(fault.Refuse, fault.Input, "publish one module at a time",
				"the layouts hold %s %s and %s %s", p.Name, p.Version, name, version)
		}
		if slices.ContainsFunc(p.Images, func(other Image) bool { return other.Architecture == info.Architecture }) {
			return p, nil, fault.New(fault.Refuse, fault.Input, "name one layout for each architecture",
				"two layouts hold %s %s for %s", name, version, info.Architecture)
		}
		p.BeyondSealingSpec = append(p.BeyondSealingSpec, beyond...)
		p.Images, images = append(p.Images, info), append(images, sealed)
	}
	slices.Sort(p.BeyondSealingSpec)
	p.BeyondSealingSpec = slices.Compact(p.BeyondSealingSpec)
	return p, images, nil
}

// seal reads the layout's image, computes its seal from the layers, and returns the image with
// the seal among its annotations: itself where it has it already.
func seal(ctx context.Context, layout *ociimage.Layout) (*ociimage.Image, Image, []string, error) {
	image, err := layout.Resolve(ctx, ociimage.Reference{}, "")
	if err != nil {
		return nil, Image{}, nil, err
	}
	if err := checkDescribed(image); err != nil {
		return nil, Image{}, nil, err
	}
	root, stats, err := ociimage.Pull(ctx, layout, image, ociimage.PullOptions{Sink: layer.Discard{}})
	if err != nil {
		return nil, Image{}, nil, err
	}
	digest, err := ociimage.Seal(root)
	if err != nil {
		return nil, Image{}, nil, err
	}
	if image.Annotations[module.AnnotationSeal] != digest.String() {
		if image, err = withSeal(layout, image, digest); err != nil {
			return nil, Image{}, nil, err
		}
	}
	return image, Image{
		Architecture: image.Architecture, Digest: string(image.Digest), Seal: digest,
		Layers: len(image.Layers), Bytes: image.Size(), Files: stats.Entries,
	}, ociimage.BeyondSealingSpec(root), nil
}

// checkDescribed refuses an image that isn't a module.
func checkDescribed(image *ociimage.Image) error {
	name, version := image.Annotations[module.AnnotationName], image.Annotations[module.AnnotationVersion]
	if err := module.CheckName(name); err != nil {
		return fmt.Errorf("image %s: annotation %s: %w", image.Digest, module.AnnotationName, err)
	}
	if err := module.CheckVersion(version); err != nil {
		return fmt.Errorf("image %s: annotation %s: %w", image.Digest, module.AnnotationVersion, err)
	}
	manifest, err := module.ParseManifest([]byte(image.Labels[module.LabelManifest]))
	if err != nil {
		return fmt.Errorf("image %s: label %s: %w", image.Digest, module.LabelManifest, err)
	}
	if manifest.Name != name {
		return fault.New(fault.Refuse, fault.Input, "build the module again",
			"image %s is annotated as module %s, and its manifest.yaml is that of %s", image.Digest, name, manifest.Name)
	}
	return nil
}

// withSeal adds the sealed image to the layout, under the module's version. All else of the
// manifest stays as its builder made it.
func withSeal(layout *ociimage.Layout, image *ociimage.Image, seal fsverity.Digest) (*ociimage.Image, error) {
	tag := module.VersionTag(image.Annotations[module.AnnotationVersion])
	return layout.Annotate(image, map[string]string{module.AnnotationSeal: seal.String()}, tag)
}

// push pushes one image, by its digest, and attaches both forms of its signature.
func push(ctx context.Context, o Options, p Published, layout *ociimage.Layout, image *ociimage.Image) error {
	ref := ociimage.Reference{Repository: o.Repository}
	add, done := o.Progress("push "+p.Name+" "+p.Version, image.Size())
	counters := make([]int64, len(image.Layers))
	err := o.Client.Push(ctx, layout, image, ref, func(i int, n, _ int64) {
		add(n - counters[i])
		counters[i] = n
	})
	done(err)
	if err != nil {
		return err
	}
	return sign(o, image.Digest, func(s ociimage.Signature) error { return o.Client.Attach(ctx, o.Repository, image, s) })
}

// pushIndex pushes the images' index, by its digest, and attaches both forms of its signature.
func pushIndex(ctx context.Context, o Options, p Published, images []*ociimage.Image) (*ociimage.Index, error) {
	index, err := o.Client.PushIndex(ctx, o.Repository, "", images, map[string]string{
		module.AnnotationName: p.Name, module.AnnotationVersion: p.Version,
	})
	if err != nil {
		return nil, err
	}
	return index, sign(o, index.Digest, func(s ociimage.Signature) error { return o.Client.AttachToIndex(ctx, o.Repository, index, s) })
}

// sign makes both forms of a manifest's signature and attaches them.
func sign(o Options, subject digest.Digest, attach func(ociimage.Signature) error) error {
	s, err := signing.SignManifest(o.Key, signing.Image{Digest: string(subject), Repository: o.Repository})
	if err != nil {
		return err
	}
	for _, attached := range []ociimage.Signature{
		{MediaType: signing.BundleMediaType, Data: s.Bundle, Annotations: map[string]string{
			signing.AnnotationBundleContent: signing.BundleContent, signing.AnnotationPredicateType: signing.PredicateType,
		}},
		{MediaType: signing.PayloadMediaType, Data: s.Payload, Annotations: map[string]string{signing.AnnotationSignature: s.Signature}},
	} {
		if err := attach(attached); err != nil {
			return err
		}
	}
	return nil
}

// NameOf returns the name of the module in a layout.
func NameOf(ctx context.Context, layout *ociimage.Layout) (string, error) {
	image, err := layout.Resolve(ctx, ociimage.Reference{}, "")
	if err != nil {
		return "", err
	}
	if err := checkDescribed(image); err != nil {
		return "", err
	}
	return image.Annotations[module.AnnotationName], nil
}
