package modulebuild

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/layer"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/ociimage"
)

// checkLayout refuses early what Build would refuse late.
func (b *builder) checkLayout() error {
	entries, err := os.ReadDir(b.Layout)
	switch {
	case b.Layout == "":
		return fault.New(fault.Refuse, fault.Input, "name a directory with --layout", "build module %s: there is no place to put it", b.manifest.Name)
	case errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0:
		return nil
	case err != nil:
		return fault.New(fault.Refuse, fault.Input, "name another directory", "write to the layout %s: %w", b.Layout, err)
	case !b.Replace:
		return fault.New(fault.Refuse, fault.Input, "name another directory, or replace it with --force", "write to the layout %s: the directory is not empty", b.Layout)
	}
	old, err := ociimage.OpenLayout(b.Layout)
	if err != nil {
		return fmt.Errorf("replace the layout: %w", err)
	}
	return old.Close()
}

// write puts the image into a layout beside its place, then into its place.
func (b *builder) write(ctx context.Context, c *content) error {
	if err := os.MkdirAll(filepath.Dir(b.Layout), 0o755); err != nil {
		return fault.New(fault.Refuse, fault.Input, "name another directory", "make the directory for the layout: %w", err)
	}
	beside, err := os.MkdirTemp(filepath.Dir(b.Layout), "."+filepath.Base(b.Layout)+"-")
	if err != nil {
		return fault.New(fault.Refuse, fault.Input, "name another directory", "make the directory for the layout: %w", err)
	}
	defer os.RemoveAll(beside) //nolint:errcheck // after success it is gone, before it is debris
	fresh := filepath.Join(beside, "layout")
	if err := b.writeImage(ctx, c, fresh); err != nil {
		return err
	}
	if b.Replace {
		if err := os.Rename(b.Layout, filepath.Join(beside, "old")); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("replace the layout %s: %w", b.Layout, err)
		}
	}
	// rename(2) takes an empty directory's place, os.Rename doesn't.
	if err := unix.Rename(fresh, b.Layout); err != nil {
		return fmt.Errorf("put the layout into its place: %w", err)
	}
	b.result.Layout = b.Layout
	return nil
}

func (b *builder) writeImage(ctx context.Context, c *content, dir string) error {
	layout, err := ociimage.CreateLayout(dir)
	if err != nil {
		return err
	}
	defer layout.Close() //nolint:errcheck // everything in it has been written and closed
	l, err := layout.AddLayer(ctx, c.root, layer.WriteOptions{Open: c.open})
	if err != nil {
		return err
	}
	image, err := layout.AddImage(ociimage.ImageSpec{
		Architecture: b.architecture(c),
		Created:      b.Epoch,
		Labels:       map[string]string{module.LabelManifest: string(b.Manifest)},
		Annotations: map[string]string{
			module.AnnotationName:     b.manifest.Name,
			module.AnnotationVersion:  b.Version,
			ocispec.AnnotationTitle:   b.manifest.Name,
			ocispec.AnnotationCreated: b.Epoch.Format(time.RFC3339),
		},
		Layers: []layer.Descriptor{l},
		Tag:    module.VersionTag(b.Version),
	})
	if err != nil {
		return err
	}
	b.result.Digest, b.result.LayerBytes, b.result.Architecture = image.Digest.String(), l.Size, image.Architecture
	return nil
}
