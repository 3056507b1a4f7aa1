package ociimage

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/layer"
	"github.com/powernode/powernode-agent/internal/tree"
)

// CreateLayout makes an empty layout in the directory at path, which must be empty or not be
// there. Blobs appear under their names only when they are whole, and index.json names them only
// then, so that an interrupted build leaves a valid layout. It is not made to survive a power cut:
// a build is repeated.
func CreateLayout(path string) (*Layout, error) {
	l, err := createLayout(path)
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Input, "name a directory that is empty or not there yet", "create OCI layout %s: %w", path, err)
	}
	return l, nil
}

func createLayout(path string) (*Layout, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, err
	}
	if entries, err := os.ReadDir(path); err != nil {
		return nil, err
	} else if len(entries) > 0 {
		return nil, errors.New("the directory is not empty")
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	l := &Layout{path: path, files: layoutDir{root}}
	l.index = ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{},
	}
	marker, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err == nil {
		err = root.MkdirAll(ocispec.ImageBlobsDir+"/"+digest.SHA256.String(), 0o755)
	}
	if err == nil {
		err = l.writeFile(ocispec.ImageLayoutFile, marker)
	}
	if err == nil {
		err = l.writeIndex()
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// root returns the directory to write to.
func (l *Layout) root() (*os.Root, error) {
	if dir, ok := l.files.(layoutDir); ok {
		return dir.Root, nil
	}
	return nil, fault.New(fault.Refuse, fault.Input, "unpack it into a directory", "OCI layout %s is a tar, which can't be changed", l.path)
}

// writeFile puts a file in its place at once.
func (l *Layout) writeFile(name string, data []byte) error {
	return l.install(func(w io.Writer) (string, error) {
		_, err := w.Write(data)
		return name, err
	})
}

// install writes a file under a name that write decides when it is done.
func (l *Layout) install(write func(io.Writer) (name string, err error)) (err error) {
	root, err := l.root()
	if err != nil {
		return err
	}
	temp := ".tmp-" + rand.Text()
	file, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	name, err := write(file)
	if err = errors.Join(err, file.Close()); err == nil {
		err = root.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(err, root.Remove(temp))
	}
	return nil
}

func (l *Layout) writeIndex() error {
	b, err := json.Marshal(l.index)
	if err != nil {
		return err
	}
	return l.writeFile(ocispec.ImageIndexFile, b)
}

// AddLayer writes a tree as a tar+zstd layer; see layer.Write.
func (l *Layout) AddLayer(ctx context.Context, root *tree.Node, o layer.WriteOptions) (layer.Descriptor, error) {
	var d layer.Descriptor
	err := l.install(func(w io.Writer) (string, error) {
		written, err := layer.Write(ctx, w, root, o)
		if err != nil {
			return "", err
		}
		d = written
		return blobPath(d.Digest), nil
	})
	if err != nil {
		return layer.Descriptor{}, fmt.Errorf("add layer to OCI layout %s: %w", l.path, err)
	}
	return d, nil
}

// ImageSpec is what AddImage makes an image of.
type ImageSpec struct {
	// Architecture is a GOARCH, or AnyArchitecture. OS is always linux.
	Architecture, Variant string
	// Created is noted in the config where it is not zero.
	Created time.Time
	// Labels are the config's, Annotations the manifest's: the seal among them.
	Labels, Annotations map[string]string
	// Layers are bottom first, as AddLayer returned them.
	Layers []layer.Descriptor
	// Tag is the image's name in the layout; it may be empty.
	Tag string
}

// AddImage writes config and manifest, and lists the image in index.json in place of one that had
// the same tag. The same spec gives the same bytes.
func (l *Layout) AddImage(spec ImageSpec) (*Image, error) {
	image, err := l.addImage(spec)
	if err != nil {
		return nil, fmt.Errorf("add image to OCI layout %s: %w", l.path, err)
	}
	return image, nil
}

func (l *Layout) addImage(spec ImageSpec) (*Image, error) {
	config := ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: spec.Architecture, Variant: spec.Variant},
		Config:   ocispec.ImageConfig{Labels: spec.Labels},
		RootFS:   ocispec.RootFS{Type: "layers"},
	}
	if !spec.Created.IsZero() {
		created := spec.Created.UTC()
		config.Created = &created
	}
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Annotations: spec.Annotations,
	}
	for _, d := range spec.Layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, d.DiffID)
		manifest.Layers = append(manifest.Layers, ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size})
	}
	configBytes, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	manifest.Config = describe(ocispec.MediaTypeImageConfig, configBytes)
	manifestBytes, err := json.Marshal(manifest)
	if err != nil {
		return nil, err
	}
	image, err := ParseImage(manifestBytes, configBytes)
	if err != nil {
		return nil, err
	}
	ctx := context.Background() // local files: nothing to wait for
	if err := l.putBlob(ctx, manifest.Config, configBytes); err != nil {
		return nil, err
	}
	d := image.Descriptor()
	d.Platform = &config.Platform
	return image, l.putManifest(ctx, d, manifestBytes, spec.Tag)
}

func describe(mediaType string, b []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
}

func (l *Layout) putBlob(_ context.Context, d ocispec.Descriptor, b []byte) error {
	return l.writeFile(blobPath(d.Digest), b)
}

// putManifest writes a manifest and lists it, in place of what had its tag or its digest.
func (l *Layout) putManifest(_ context.Context, d ocispec.Descriptor, b []byte, tag string) error {
	if err := l.writeFile(blobPath(d.Digest), b); err != nil {
		return err
	}
	if tag != "" {
		d.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
	}
	kept := make([]ocispec.Descriptor, 0, len(l.index.Manifests)+1)
	for _, old := range l.index.Manifests {
		oldTag := old.Annotations[ocispec.AnnotationRefName]
		if tag != "" && oldTag == tag || old.Digest == d.Digest && oldTag == tag {
			continue
		}
		kept = append(kept, old)
	}
	l.index.Manifests = append(kept, d)
	return l.writeIndex()
}

// tagged returns the manifest under a tag; ok says whether there is one.
func (l *Layout) tagged(ctx context.Context, tag string) (b []byte, ok bool, err error) {
	for _, d := range l.index.Manifests {
		if d.Annotations[ocispec.AnnotationRefName] == tag {
			b, err := l.document(ctx, "", d.Digest)
			return b, err == nil, err
		}
	}
	return nil, false, nil
}
