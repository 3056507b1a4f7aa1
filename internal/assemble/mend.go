package assemble

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/signature"
	"github.com/powernode/powernode-agent/internal/store"
)

// hintMend is what a person can do about damage in the store.
const hintMend = "powernode-agent update fetches it again, as does a boot with its registry in reach"

// DamageError says that the store's copy of a module is damaged: the same bytes, fetched again,
// would mend it. Kind, area and hint are those of its cause.
type DamageError struct {
	Wanted Wanted
	// Objects are those that are missing, of other bytes or unreadable; the module's image may be
	// among them.
	Objects []fsverity.Digest
	// Record says that the module's record is.
	Record bool
	// Err is what was found.
	Err error
}

// Error returns what is damaged, with the module's name.
func (e *DamageError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *DamageError) Unwrap() error { return e.Err }

// Mend fetches the layers of a damaged module again, from the registry that it came from, and
// replaces its damaged objects one by one, each in one step. The signature is checked
// before, the seal of what came after; what can't be had leaves everything as it is. It proves
// nothing: that is Prove's, afterwards.
func (f *Fetcher) Mend(ctx context.Context, damage *DamageError, fresh *Fresh) (ociimage.Stats, error) {
	want := damage.Wanted
	fail := func(stats ociimage.Stats, err error) (ociimage.Stats, error) {
		return stats, fmt.Errorf("fetch module %s again: %w", want, err)
	}
	image, bundles, err := f.known(ctx, want)
	if err != nil {
		return fail(ociimage.Stats{}, err)
	}
	sealed, err := readSealed(want, image)
	if err != nil {
		return fail(ociimage.Stats{}, err)
	}
	into := &sink{store: f.Store, fresh: fresh, replace: make(map[fsverity.Digest]bool, len(damage.Objects))}
	for _, d := range damage.Objects {
		into.replace[d] = true
	}
	canonical, moduleImage, stats, err := f.layers(ctx, want, image, sealed, into)
	if err != nil {
		return fail(stats, err)
	}
	if into.replace[sealed.Seal] {
		if err := replaceObject(f.Store, moduleImage); err != nil {
			return fail(stats, err)
		}
	}
	if damage.Record {
		err = f.put(want, image, sealed, bundles, canonical, moduleImage)
	} else {
		err = f.Store.Sync()
	}
	if err != nil {
		return fail(stats, err)
	}
	return stats, nil
}

// known returns the module's documents and good signatures from its record, or, where that can't
// be used, from its repository.
func (f *Fetcher) known(ctx context.Context, want Wanted) (*ociimage.Image, [][]byte, error) {
	if m, err := f.Store.GetModule(want.ManifestDigest); err == nil {
		if image, err := f.recorded(want, m); err == nil {
			return image, m.Bundles, nil
		}
	}
	image, err := f.Source.Resolve(ctx, ociimage.Reference{Repository: want.Repository, Digest: digest.Digest(want.ManifestDigest)}, f.Arch)
	if err != nil {
		return nil, nil, err
	}
	_, bundles, err := judge(ctx, f.Source, f.Verifier, want, image)
	return image, bundles, err
}

// recorded returns the image of a record whose signatures are good.
func (f *Fetcher) recorded(want Wanted, m store.Module) (*ociimage.Image, error) {
	bundles := make([]signature.Bundle, len(m.Bundles))
	for i, raw := range m.Bundles {
		bundles[i] = signature.DecodeBundle(raw)
	}
	_, err := f.Verifier.VerifyManifest(signature.Subject{
		Repository: want.Repository, ManifestDigest: want.ManifestDigest, Manifest: m.Manifest, Name: want.Name, Version: want.Version,
	}, bundles)
	if err != nil {
		return nil, err
	}
	image, err := ociimage.ParseImage(m.Manifest, m.Config)
	if err != nil {
		return nil, err
	}
	image.Repository = want.Repository
	return image, nil
}

// replaceObject writes an object that takes the place of a damaged or missing one.
func replaceObject(st *store.Store, data []byte) error {
	w, err := st.NewObject(int64(len(data)))
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := w.Write(data); err != nil {
		return err
	}
	_, err = w.Replace()
	return err
}
