package assemble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/layer"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/signature"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/tree"
)

// Fetcher brings assigned modules into the store.
type Fetcher struct {
	Store    *store.Store
	Source   ociimage.Source
	Verifier *signature.Verifier
	// Arch is the GOARCH to fetch for.
	Arch string
	// Progress is told of a download of total bytes that begins, and returns what to tell of n more
	// bytes and of the end; nil shows nothing.
	Progress func(name string, total int64) (add func(n int64), done func(error))
	Now      func() time.Time
}

// Fetched is a module that is in the store now.
type Fetched struct {
	Wanted Wanted
	// Pulled is zero where the module was in the store already.
	Pulled ociimage.Stats
}

// Offer is a module that can be had: its image was resolved and its signature verified, and
// nothing of it was written.
type Offer struct {
	Wanted Wanted
	Sealed Sealed
	// Here says that the store has all of it, as far as that can be told without reading it. Size is what
	// the layers have, compressed, in bytes.
	Here bool
	Size int64

	image   *ociimage.Image
	bundles [][]byte
}

// Layers returns the module's layers, as its signed manifest describes them.
func (o *Offer) Layers() []store.Layer { return layersOf(o.image) }

func layersOf(image *ociimage.Image) []store.Layer {
	layers := make([]store.Layer, len(image.Layers))
	for i, l := range image.Layers {
		layers[i] = store.Layer{MediaType: l.MediaType, Digest: string(l.Digest), Size: l.Size}
	}
	return layers
}

// Look resolves an assigned module whose name and version were checked, and verifies its signature. It
// changes nothing.
func (f *Fetcher) Look(ctx context.Context, m nodeapi.Module) (*Offer, error) {
	image, err := f.Source.Resolve(ctx, ociimage.Reference{Repository: m.Repository, Digest: digest.Digest(m.Digest)}, f.Arch)
	if err != nil {
		return nil, fmt.Errorf("module %s %s: %w", m.Name, m.Version, err)
	}
	o := &Offer{image: image, Size: image.Size(), Wanted: Wanted{
		ID: m.ID, Name: m.Name, Version: m.Version, Repository: m.Repository,
		ManifestDigest: string(image.Digest), EffectivePriority: m.EffectivePriority,
	}}
	if _, o.bundles, err = judge(ctx, f.Source, f.Verifier, o.Wanted, image); err != nil {
		return nil, err
	}
	if o.Sealed, err = readSealed(o.Wanted, image); err != nil {
		return nil, err
	}
	have, err := f.Store.GetModule(o.Wanted.ManifestDigest)
	o.Here = err == nil && have.Seal == o.Sealed.Seal && f.whole(have)
	return o, nil
}

// Fetch is Look, and then Bring.
func (f *Fetcher) Fetch(ctx context.Context, m nodeapi.Module, fresh *Fresh) (Fetched, error) {
	o, err := f.Look(ctx, m)
	if err != nil {
		return Fetched{}, err
	}
	return f.Bring(ctx, o, fresh)
}

// Bring pulls the layers of a module that was looked at, unless the store has it, and checks its
// seal. fresh collects the objects whose bytes were hashed on the way. Nothing of a module that is refused is
// kept but objects without a record.
func (f *Fetcher) Bring(ctx context.Context, o *Offer, fresh *Fresh) (Fetched, error) {
	want := o.Wanted
	have, err := f.Store.GetModule(want.ManifestDigest)
	switch {
	case err == nil && have.Seal == o.Sealed.Seal && f.whole(have):
		if slices.EqualFunc(have.Bundles, o.bundles, bytes.Equal) && have.Repository == want.Repository {
			return Fetched{Wanted: want}, nil
		}
		// Signed again, or moved: the same content under other names.
		have.Bundles, have.Repository = o.bundles, want.Repository
		return Fetched{Wanted: want}, f.Store.PutModule(have, nil)
	case err != nil && !errors.Is(err, fs.ErrNotExist) && fault.KindOf(err) != fault.Broken:
		return Fetched{}, err
	}
	stats, err := f.pull(ctx, want, o.image, o.Sealed, o.bundles, fresh)
	if err != nil {
		return Fetched{}, fmt.Errorf("module %s: %w", want, err)
	}
	return Fetched{Wanted: want, Pulled: stats}, nil
}

// Peek is Bring that keeps nothing: it reads every layer of a module that was looked at and checks its seal, so
// that what it would make of a root is known before anything is written. What it returns has the store's record
// not, and no Signed account.
func (f *Fetcher) Peek(ctx context.Context, o *Offer) (*Proven, error) {
	add, done := f.progress("read "+o.Wanted.String(), o.Size)
	pulled := make([]int64, len(o.image.Layers))
	root, _, err := ociimage.Pull(ctx, f.Source, o.image, ociimage.PullOptions{
		Sink: layer.Discard{},
		Progress: func(i int, n, _ int64) {
			add(n - pulled[i])
			pulled[i] = n
		},
	})
	done(err)
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", o.Wanted, err)
	}
	canonical, _, err := checkSeal(root, o.Sealed.Seal)
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", o.Wanted, err)
	}
	return &Proven{Wanted: o.Wanted, Manifest: o.Sealed.Manifest, Module: store.Module{Seal: o.Sealed.Seal}, Root: canonical}, nil
}

// whole reports whether all objects of a module are there. A damaged one is Prove's to find; once
// somebody has removed it, the module is pulled again.
func (f *Fetcher) whole(m store.Module) bool {
	for _, d := range append(m.Objects, m.Seal) {
		if !f.Store.HasObject(d) {
			return false
		}
	}
	return true
}

// pull streams the layers into the store, checks the seal of what they make, and commits.
func (f *Fetcher) pull(ctx context.Context, want Wanted, image *ociimage.Image, sealed Sealed, bundles [][]byte, fresh *Fresh) (ociimage.Stats, error) {
	canonical, moduleImage, stats, err := f.layers(ctx, want, image, sealed, &sink{store: f.Store, fresh: fresh})
	if err != nil {
		return stats, err
	}
	return stats, f.put(want, image, sealed, bundles, canonical, moduleImage)
}

// layers streams the layers into sink, and returns the tree that they make and its image once its
// seal is what the signed manifest says.
func (f *Fetcher) layers(ctx context.Context, want Wanted, image *ociimage.Image, sealed Sealed, into *sink) (*tree.Node, []byte, ociimage.Stats, error) {
	add, done := f.progress("pull "+want.String(), image.Size())
	pulled := make([]int64, len(image.Layers))
	root, stats, err := ociimage.Pull(ctx, f.Source, image, ociimage.PullOptions{
		Sink:     into,
		Partials: ociimage.PartialsFunc(func(d string) (ociimage.Partial, error) { return f.Store.Partial(d) }),
		Progress: func(i int, n, _ int64) {
			// Each layer is read by one goroutine, so its own counter needs no lock.
			add(n - pulled[i])
			pulled[i] = n
		},
	})
	done(err)
	if err != nil {
		return nil, nil, stats, err
	}
	canonical, moduleImage, err := checkSeal(root, sealed.Seal)
	return canonical, moduleImage, stats, err
}

// put writes the module's record.
func (f *Fetcher) put(want Wanted, image *ociimage.Image, sealed Sealed, bundles [][]byte, canonical *tree.Node, moduleImage []byte) error {
	record := store.Module{
		Name: want.Name, Version: want.Version, Repository: want.Repository, ManifestDigest: want.ManifestDigest, Seal: sealed.Seal,
		PulledAt: f.Now().UTC(), Manifest: image.Manifest, Config: image.Config, Bundles: bundles, Objects: objects(canonical, nil),
		Layers: layersOf(image),
	}
	return f.Store.PutModule(record, bytes.NewReader(moduleImage))
}

func (f *Fetcher) progress(name string, total int64) (add func(int64), done func(error)) {
	if f.Progress == nil {
		return func(int64) {}, func(error) {}
	}
	return f.Progress(name, total)
}
