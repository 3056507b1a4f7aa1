package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/powernode/powernode-agent/internal/composefs"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/layer"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/platform/db"
	"github.com/powernode/powernode-agent/internal/tree"
)

// maxConfig bounds an image's config in bytes: its labels hold the module's manifest.
const maxConfig = 4 << 20

// imageLabel is the label of the writes of module images.
const imageLabel = "module-image"

// inspected is what one image of a module turned out to be.
type inspected struct {
	name           string
	version        string
	rebootRequired bool
	image          db.Image
}

func decode[T any](data []byte) (T, error) {
	var v T
	err := json.Unmarshal(data, &v)
	return v, err
}

// inspect reads an image with all its layers, checks that it is the module that it says it is,
// and keeps its composefs image under its seal.
func (c *Catalog) inspect(ctx context.Context, repository, digest string) (*inspected, error) {
	done, err := c.work(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	return c.inspectNow(ctx, repository, digest)
}

// inspectNow is inspect for a caller whose turn it is already.
func (c *Catalog) inspectNow(ctx context.Context, repository, digest string) (*inspected, error) {
	image, err := c.open(ctx, repository, digest)
	if err != nil {
		return nil, err
	}
	out, want, err := describe(image)
	if err != nil {
		return nil, err
	}
	root, err := c.readTree(ctx, repository, image)
	if err != nil {
		return nil, err
	}
	if err := checkManifestFile(root, out.name, out.image.Manifest); err != nil {
		return nil, err
	}
	bytes, seal, err := composefs.Build(root, composefs.V1)
	if err != nil {
		return nil, refuse("compute the seal: %w", err)
	}
	if seal != want {
		return nil, fault.New(fault.Refuse, fault.Verify, "seal and publish the module again",
			"the seal of %s %s is %s, but its annotation says %s", out.name, out.version, seal, want)
	}
	out.image.Seal = seal
	if err := c.dir.WriteNew(seal.String(), bytes, 0o600, imageLabel); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("keep the image of %s %s: %w", out.name, out.version, err)
	}
	return out, nil
}

// open reads an image's manifest and config.
func (c *Catalog) open(ctx context.Context, repository, digest string) (*ociimage.Image, error) {
	_, _, manifest, err := c.registry.Manifest(ctx, repository, digest)
	if err != nil {
		return nil, err
	}
	doc, err := decode[ocispec.Manifest](manifest)
	if err != nil {
		return nil, refuse("its manifest: %w", err)
	}
	if doc.Config.Size > maxConfig {
		return nil, refuse("its config has %d bytes, and %d are the most", doc.Config.Size, maxConfig)
	}
	f, err := c.registry.OpenBlob(ctx, repository, string(doc.Config.Digest), doc.Config.Size)
	if errors.Is(err, db.ErrNotFound) {
		return nil, refuse("the registry lacks its config %s", doc.Config.Digest)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read from
	config, err := io.ReadAll(io.LimitReader(f, maxConfig))
	if err != nil {
		return nil, fmt.Errorf("read its config: %w", err)
	}
	return ociimage.ParseImage(manifest, config)
}

// describe reads what an image says of itself, and the seal that it claims.
func describe(image *ociimage.Image) (*inspected, fsverity.Digest, error) {
	none := fsverity.Digest{}
	if image.OS != "linux" || !knownArchitecture(image.Architecture) {
		return nil, none, refuse("it is for %.40q/%.40q: want linux/amd64, linux/arm64 or linux/all", image.OS, image.Architecture)
	}
	name, version := image.Annotations[module.AnnotationName], image.Annotations[module.AnnotationVersion]
	if err := module.CheckName(name); err != nil {
		return nil, none, refuse("its annotation %s: %w", module.AnnotationName, err)
	}
	if err := module.CheckVersion(version); err != nil {
		return nil, none, refuse("its annotation %s: %w", module.AnnotationVersion, err)
	}
	text := image.Labels[module.LabelManifest]
	if text == "" {
		return nil, none, refuse("its config lacks the label %s: it is an image, but no module", module.LabelManifest)
	}
	manifest, err := module.ParseManifest([]byte(text))
	if err != nil {
		return nil, none, refuse("its manifest.yaml: %w", err)
	}
	if manifest.Name != name {
		return nil, none, refuse("its manifest.yaml is of %s, and its annotation says %s", manifest.Name, name)
	}
	seal, err := image.Seal()
	return &inspected{
		name: name, version: version, rebootRequired: manifest.RebootRequired,
		image: db.Image{Architecture: image.Architecture, ManifestDigest: string(image.Digest), Manifest: text},
	}, seal, err
}

// readTree reads the layers into the module's canonical tree, keeping no content.
func (c *Catalog) readTree(ctx context.Context, repository string, image *ociimage.Image) (*tree.Node, error) {
	reader := layer.NewReader(layer.Discard{}, layer.DefaultLimits())
	var layers []*layer.Layer
	for _, d := range image.Layers {
		l, err := c.readLayer(ctx, repository, reader, d)
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", d.Digest, err)
		}
		layers = append(layers, l)
	}
	root, err := layer.Merge(layers...)
	if err != nil {
		return nil, err
	}
	return ociimage.Canonical(root)
}

func (c *Catalog) readLayer(ctx context.Context, repository string, reader *layer.Reader, d layer.Descriptor) (*layer.Layer, error) {
	f, err := c.registry.OpenBlob(ctx, repository, string(d.Digest), d.Size)
	if errors.Is(err, db.ErrNotFound) {
		return nil, refuse("the registry lacks it")
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read from
	return reader.Read(ctx, d, f)
}

// checkManifestFile checks that the tree holds the same manifest.yaml as the label: the one is
// what a node finds in its root, the other what composes it.
func checkManifestFile(root *tree.Node, name, text string) error {
	path := module.ManifestPath(name)
	n := root.Lookup(path)
	same := n != nil && n.Kind == tree.Regular && n.Size == uint64(len(text))
	if same && n.Digest.IsZero() {
		same = string(n.Inline) == text
	} else if same {
		same = n.Digest == fsverity.SumBytes([]byte(text))
	}
	if !same {
		return refuse("/%s isn't the manifest.yaml of the label %s", path, module.LabelManifest)
	}
	return nil
}
