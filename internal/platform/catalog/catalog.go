// Package catalog is what the platform knows of modules beyond their bytes: it checks a module
// that was pushed to the registry, and computes the root digest that a node with given modules
// must have.
//
// It promises that a registered module's name, version and manifest are those in its image, that
// its seal was computed here from its layers and found equal to the annotation, and that the
// expected root is the same pure function that nodes compute. It doesn't check signatures:
// whose count is for the node's own trust policy to say, which the platform can't change. It
// trusts the registry's digests and nothing inside the images.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/singleflight"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// Registry is where modules' bytes come from. *registry.Registry and *external.Registry are.
type Registry interface {
	// Manifest returns a manifest whose bytes have the digest; an error that wraps db.ErrNotFound says that there is none.
	Manifest(ctx context.Context, repository, reference string) (mediaType, digest string, data []byte, err error)
	// OpenBlob opens a blob that is said to have that size. That it isn't there, db.ErrNotFound may say at once, or the first read.
	OpenBlob(ctx context.Context, repository, digest string, size int64) (io.ReadCloser, error)
}

// Records is where the catalog keeps what it found. *db.DB is one.
type Records interface {
	Register(ctx context.Context, m db.Module) (db.Module, error)
	Root(ctx context.Context, inputHash [32]byte) (db.Root, error)
	PutRoot(ctx context.Context, inputHash [32]byte, r db.Root) error
}

// Options is what a Catalog is made of.
type Options struct {
	// Dir holds the modules' composefs images by seal. It belongs to the catalog alone, and can
	// be lost: what is missing is made again from the registry.
	Dir      *durable.Dir
	Registry Registry
	Records  Records
}

// Catalog is safe for concurrent use.
type Catalog struct {
	dir      *durable.Dir
	registry Registry
	records  Records
	// heavy bounds how many modules or compositions are worked on at once: each holds whole
	// trees in memory.
	heavy  chan struct{}
	flight singleflight.Group
}

// New returns a Catalog.
func New(o Options) *Catalog {
	return &Catalog{dir: o.Dir, registry: o.Registry, records: o.Records, heavy: make(chan struct{}, 2)}
}

// work waits for its turn to do something heavy. The caller calls done afterwards.
func (c *Catalog) work(ctx context.Context) (done func(), err error) {
	select {
	case c.heavy <- struct{}{}:
		return func() { <-c.heavy }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Registration is a module to make known.
type Registration struct {
	// Repository is a path in the platform's registry.
	Repository string
	// Digest is that of an image manifest, or of an index.
	Digest           string
	Variety          nodeapi.Variety
	CategoryPosition int
	Priority         int
}

// Register checks a module that was pushed and makes it the current version of its name. It
// reads every layer. Errors that refuse the module are fault.Refuse, with the hint what to do.
func (c *Catalog) Register(ctx context.Context, in Registration) (db.Module, error) {
	manifests, err := c.manifests(ctx, in.Repository, in.Digest)
	if err != nil {
		return db.Module{}, err
	}
	var found []*inspected
	for _, m := range manifests {
		one, err := c.inspect(ctx, in.Repository, m.digest)
		if err != nil {
			return db.Module{}, fmt.Errorf("register %s@%s: %w", in.Repository, m.digest, err)
		}
		if m.architecture != "" && m.architecture != one.image.Architecture {
			return db.Module{}, refuse("register %s@%s: the index says that it is for %s, its config that it is for %s",
				in.Repository, m.digest, m.architecture, one.image.Architecture)
		}
		found = append(found, one)
	}
	first := found[0]
	out := db.Module{
		Name: first.name, Variety: string(in.Variety), CategoryPosition: in.CategoryPosition, Priority: in.Priority,
		Version: first.version, Repository: in.Repository, Digest: in.Digest,
	}
	for _, one := range found {
		if one.name != first.name || one.version != first.version {
			return db.Module{}, refuse("register %s@%s: its images are of different modules, %s %s and %s %s",
				in.Repository, in.Digest, first.name, first.version, one.name, one.version)
		}
		if slices.ContainsFunc(out.Images, func(i db.Image) bool { return i.Architecture == one.image.Architecture }) {
			return db.Module{}, refuse("register %s@%s: it has two images for %s", in.Repository, in.Digest, one.image.Architecture)
		}
		out.Images = append(out.Images, one.image)
		out.RebootRequired = out.RebootRequired || one.rebootRequired
	}
	return c.records.Register(ctx, out)
}

// refuse is for a module that doesn't fit itself.
func refuse(format string, args ...any) error {
	return fault.New(fault.Refuse, fault.Verify, "build and publish the module again", format, args...)
}

// candidate is an image manifest that a registration names.
type candidate struct {
	digest string
	// architecture is what the index says, or "" where there is no index.
	architecture string
}

// manifests returns the image manifests behind a digest: itself, or those of an index that are
// for a node's architecture.
func (c *Catalog) manifests(ctx context.Context, repository, digest string) ([]candidate, error) {
	mediaType, _, data, err := c.registry.Manifest(ctx, repository, digest)
	if errors.Is(err, db.ErrNotFound) {
		return nil, fault.New(fault.Refuse, fault.Input, "push it first", "register %s@%s: the registry doesn't hold it", repository, digest)
	}
	if err != nil {
		return nil, err
	}
	if !isIndex(mediaType) {
		return []candidate{{digest: digest}}, nil
	}
	index, err := decode[ocispec.Index](data)
	if err != nil {
		return nil, refuse("register %s@%s: its index: %w", repository, digest, err)
	}
	var list []candidate
	for _, d := range index.Manifests {
		// Builders put attestations beside the images, for the platform "unknown".
		if d.Platform == nil || d.Platform.OS != "linux" || !knownArchitecture(d.Platform.Architecture) || isIndex(d.MediaType) {
			continue
		}
		list = append(list, candidate{string(d.Digest), d.Platform.Architecture})
	}
	if len(list) == 0 {
		return nil, refuse("register %s@%s: its index has no image for linux/amd64 or linux/arm64", repository, digest)
	}
	return list, nil
}

func isIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == "application/vnd.docker.distribution.manifest.list.v2+json"
}

func knownArchitecture(s string) bool { return s == "amd64" || s == "arm64" || s == db.AnyArchitecture }
