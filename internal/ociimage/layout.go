package ociimage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/layer"
)

// Layout is an OCI image layout, a directory or a tar of one, as a Source.
type Layout struct {
	path  string
	files layoutFiles
	index ocispec.Index
}

// layoutFiles opens the files of a layout by their paths in it.
type layoutFiles interface {
	open(name string) (file io.ReadCloser, size int64, err error)
	io.Closer
}

// OpenLayout opens the layout at path, which is a directory or an uncompressed tar.
func OpenLayout(path string) (*Layout, error) {
	l, err := openLayout(path)
	if err == nil {
		return l, nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return nil, fmt.Errorf("open OCI layout %s: %w", path, err)
	}
	return nil, fault.New(fault.Refuse, fault.Input, "name a directory or a tar that holds oci-layout and index.json",
		"open OCI layout %s: %w", path, err)
}

func openLayout(path string) (*Layout, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	l := &Layout{path: path}
	if info.IsDir() {
		root, err := os.OpenRoot(path)
		if err != nil {
			return nil, err
		}
		l.files = layoutDir{root}
	} else if l.files, err = openLayoutTar(path); err != nil {
		return nil, err
	}
	if err := l.readIndex(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Layout) readIndex() error {
	version, err := l.read(ocispec.ImageLayoutFile)
	if err != nil {
		return err
	}
	var marker ocispec.ImageLayout
	if err := json.Unmarshal(version, &marker); err != nil || marker.Version != ocispec.ImageLayoutVersion {
		return fmt.Errorf("its file %s is not that of a version %s layout", ocispec.ImageLayoutFile, ocispec.ImageLayoutVersion)
	}
	index, err := l.read(ocispec.ImageIndexFile)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(index, &l.index); err != nil {
		return fmt.Errorf("%s: %w", ocispec.ImageIndexFile, err)
	}
	return nil
}

// read reads a whole small file.
func (l *Layout) read(name string) ([]byte, error) {
	file, _, err := l.files.open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // only read from
	b, err := readBounded(file, documentMax)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return b, nil
}

// Close closes the layout's directory or file.
func (l *Layout) Close() error { return l.files.Close() }

// Resolve finds the image that ref's digest or tag names; its Repository doesn't matter. An empty
// ref means the only image that there is, or, of one that was sealed by Annotate, the sealed one.
func (l *Layout) Resolve(ctx context.Context, ref Reference, arch string) (*Image, error) {
	d, err := l.find(ctx, ref, arch)
	if err != nil {
		return nil, err
	}
	doc, err := l.document(ctx, "", d)
	if err != nil {
		return nil, err
	}
	image, err := resolve(ctx, l, "", doc, arch)
	if err != nil {
		return nil, fmt.Errorf("OCI layout %s: %w", l.path, err)
	}
	return image, nil
}

func (l *Layout) find(ctx context.Context, ref Reference, arch string) (digest.Digest, error) {
	if ref.Digest != "" {
		return ref.Digest, nil
	}
	var found []ocispec.Descriptor
	var names []string
	for _, d := range l.index.Manifests {
		name := d.Annotations[ocispec.AnnotationRefName]
		if isAttachment(d, name) {
			continue
		}
		names = append(names, fmt.Sprintf("%q (%s)", name, d.Digest))
		// One image may have several names.
		if (ref.Tag == "" || name == ref.Tag || strings.HasSuffix(name, ":"+ref.Tag)) &&
			!slices.ContainsFunc(found, func(f ocispec.Descriptor) bool { return f.Digest == d.Digest }) {
			found = append(found, d)
		}
	}
	found = l.withoutTwins(ctx, found, arch)
	switch {
	case len(found) == 1:
		return found[0].Digest, nil
	case len(names) == 0:
		return "", fault.New(fault.Refuse, fault.Input, "build a module into it first", "OCI layout %s holds no image", l.path)
	case len(found) == 0:
		return "", fault.New(fault.Refuse, fault.Input, "use one of these names", "OCI layout %s holds no image %q, but %s", l.path, ref.Tag, strings.Join(names, ", "))
	default:
		return "", fault.New(fault.Refuse, fault.Input, "keep one image in a layout, or name one by its digest", "OCI layout %s holds several images: %s", l.path, strings.Join(names, ", "))
	}
}

// isAttachment tells signatures and the like from images in index.json: by the artifact type, by
// the tags that registries without the referrers API use, or by the kind that cosign save notes.
func isAttachment(d ocispec.Descriptor, name string) bool {
	kind := d.Annotations["kind"]
	return d.ArtifactType != "" || strings.HasPrefix(name, "sha256-") ||
		strings.HasPrefix(kind, "dev.cosignproject.cosign/") && !strings.HasPrefix(kind, "dev.cosignproject.cosign/image")
}

// Attached finds the signatures that index.json lists: manifests that refer to the image, and the
// older form under its tag.
func (l *Layout) Attached(ctx context.Context, image *Image) (Attachments, error) {
	g := newGatherer(l)
	for _, s := range subjects(image) {
		g.begin()
		for _, d := range l.index.Manifests {
			name := d.Annotations[ocispec.AnnotationRefName]
			var err error
			switch {
			case d.Digest == s.descriptor.Digest:
			case strings.HasSuffix(name, referrersTag(s.descriptor.Digest)+simpleSigningSuffix),
				d.Annotations["kind"] == "dev.cosignproject.cosign/sigs":
				err = l.older(ctx, g, s, d)
			case isAttachment(d, name):
				err = g.referrer(ctx, s, d)
			}
			if err != nil {
				return Attachments{}, fmt.Errorf("look for signatures of %s in OCI layout %s: %w", s.descriptor.Digest, l.path, err)
			}
		}
	}
	return g.result, nil
}

func (l *Layout) older(ctx context.Context, g *gatherer, s subject, d ocispec.Descriptor) error {
	doc, err := l.document(ctx, "", d.Digest)
	if err != nil {
		return g.passOver(err)
	}
	return g.manifest(ctx, s, doc, false)
}

func (l *Layout) document(_ context.Context, _ string, d digest.Digest) ([]byte, error) {
	b, err := l.readBlob(d, documentMax)
	if err != nil {
		return nil, err
	}
	if got := digest.FromBytes(b); got != d {
		return nil, l.damaged(d, "its bytes are %s", got)
	}
	return b, nil
}

func (l *Layout) blob(_ context.Context, _ string, d ocispec.Descriptor, limit int64) ([]byte, error) {
	if err := checkDescriptor(d, limit); err != nil {
		return nil, fault.New(fault.Refuse, fault.Verify, "build the module again", "OCI layout %s: %w", l.path, err)
	}
	file, size, err := l.openBlob(d.Digest)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // only read from
	if size != d.Size {
		return nil, l.damaged(d.Digest, "it has %d bytes, not %d", size, d.Size)
	}
	return readBlob(file, "OCI layout "+l.path, d)
}

func (l *Layout) readBlob(d digest.Digest, limit int64) ([]byte, error) {
	file, _, err := l.openBlob(d)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // only read from
	return readBounded(file, limit)
}

func (l *Layout) openBlob(d digest.Digest) (io.ReadCloser, int64, error) {
	if !validDigest(d) {
		return nil, 0, fault.New(fault.Refuse, fault.Input, "write it as sha256: and 64 hexadecimal digits", "digest %.100q is not valid", d)
	}
	file, size, err := l.files.open(blobPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fault.New(fault.Refuse, fault.Verify, "copy the whole layout", "OCI layout %s lacks the blob %s: %w", l.path, d, errNotFound{err})
	}
	if err != nil {
		return nil, 0, fmt.Errorf("OCI layout %s: %w", l.path, err)
	}
	return file, size, nil
}

func blobPath(d digest.Digest) string {
	return ocispec.ImageBlobsDir + "/" + d.Algorithm().String() + "/" + d.Encoded()
}

func (l *Layout) damaged(d digest.Digest, format string, args ...any) error {
	return fault.New(fault.Refuse, fault.Verify, "copy or build it again", "OCI layout %s: blob %s is damaged: %w", l.path, d, fmt.Errorf(format, args...))
}

func (l *Layout) openLayer(_ context.Context, _ *Image, d layer.Descriptor, offset int64) (io.ReadCloser, error) {
	file, _, err := l.openBlob(d.Digest)
	if err != nil {
		return nil, err
	}
	if offset > 0 {
		if _, err := io.CopyN(io.Discard, file, offset); err != nil {
			return nil, errors.Join(err, file.Close())
		}
	}
	return file, nil
}

func (*Layout) resumable() bool { return false }
