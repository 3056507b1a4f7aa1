package assemble

import (
	"context"
	"errors"
	"fmt"

	"github.com/powernode/powernode-agent/internal/composefs"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/layer"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/signature"
	"github.com/powernode/powernode-agent/internal/tree"
)

// SourceOptions say how to prove a module that isn't in the store.
type SourceOptions struct {
	Verifier *signature.Verifier
	// Repository is the name under which the trust policy judges the module.
	Repository string
	// Arch is the GOARCH to take of an index.
	Arch string
}

// ProvenSource is a module of a layout or a registry that passed every check.
type ProvenSource struct {
	Sealed
	Image  *ociimage.Image
	Signed *signature.Verified
	Stats  ociimage.Stats
}

// ProveSource verifies a module where it is, and keeps nothing of it: its signature, then every
// byte of its layers, then its seal. Name and version are those that the signed manifest carries.
func ProveSource(ctx context.Context, from ociimage.Source, ref ociimage.Reference, o SourceOptions) (*ProvenSource, error) {
	image, err := from.Resolve(ctx, ref, o.Arch)
	if err != nil {
		return nil, err
	}
	name, version, err := signature.ModuleOf(image.Manifest)
	if err != nil {
		return nil, err
	}
	want := Wanted{Name: name, Version: version, Repository: o.Repository, ManifestDigest: string(image.Digest)}
	signed, _, err := judge(ctx, from, o.Verifier, want, image)
	if err != nil {
		return nil, err
	}
	sealed, err := readSealed(want, image)
	if err != nil {
		return nil, err
	}
	root, stats, err := ociimage.Pull(ctx, from, image, ociimage.PullOptions{Sink: layer.Discard{}})
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", want, err)
	}
	if _, _, err := checkSeal(root, sealed.Seal); err != nil {
		return nil, fmt.Errorf("module %s: %w", want, err)
	}
	return &ProvenSource{Sealed: sealed, Image: image, Signed: signed, Stats: stats}, nil
}

// Checks returns the account of what was checked: each passed.
func (p *ProvenSource) Checks() []signature.Check {
	return append(append([]signature.Check(nil), p.Signed.Checks...),
		signature.Check{Name: "layers", Detail: fmt.Sprintf("%d layers have the digests that the manifest names", p.Stats.Layers)},
		sealCheck(p.Seal))
}

func sealCheck(seal fsverity.Digest) signature.Check {
	return signature.Check{Name: "seal", Detail: "the tree's image has the digest " + seal.String()}
}

// keptMax is how many good signatures of a module the store keeps: one is enough to boot by, and
// more let a key be retired.
const keptMax = 8

// judge finds an image's signatures and verifies them, and returns the account with those that
// are good, as the store keeps them: whoever can attach rubbish to an image fills no node's disk
// with it. Only what is attached to the manifest itself counts: it alone carries name, version and
// seal.
func judge(ctx context.Context, from ociimage.Source, verifier *signature.Verifier, want Wanted, image *ociimage.Image) (*signature.Verified, [][]byte, error) {
	attached, err := from.Attached(ctx, image)
	if err != nil {
		return nil, nil, err
	}
	subject := signature.Subject{
		Repository: want.Repository, ManifestDigest: want.ManifestDigest, Manifest: image.Manifest,
		Name: want.Name, Version: want.Version,
	}
	var bundles []signature.Bundle
	for _, a := range attached.Found {
		if a.Subject != image.Digest {
			continue
		}
		bundle := signature.Bundle{MediaType: a.MediaType, Data: a.Data, Annotations: a.Annotations}
		bundles = append(bundles, bundle)
	}
	signed, err := verifier.VerifyManifest(subject, bundles)
	if err != nil {
		if len(attached.PassedOver) > 0 {
			err = fmt.Errorf("%w (passed over: %w)", err, errors.Join(attached.PassedOver...))
		}
		return nil, nil, err
	}
	kept, err := goodOnes(verifier, subject, bundles)
	return signed, kept, err
}

// goodOnes returns the signatures that are good each by itself, encoded, in the order found.
func goodOnes(verifier *signature.Verifier, subject signature.Subject, bundles []signature.Bundle) ([][]byte, error) {
	var kept [][]byte
	for _, bundle := range bundles {
		if _, err := verifier.VerifyManifest(subject, []signature.Bundle{bundle}); err != nil {
			continue
		}
		encoded, err := bundle.Encode()
		if err != nil {
			return nil, err
		}
		if kept = append(kept, encoded); len(kept) == keptMax {
			break
		}
	}
	return kept, nil
}

// readSealed reads the seal and manifest.yaml of the wanted module out of its image's documents.
func readSealed(want Wanted, image *ociimage.Image) (Sealed, error) {
	seal, err := image.Seal()
	if err != nil {
		return Sealed{}, fmt.Errorf("module %s: %w", want, err)
	}
	described, err := manifestIn(want.String(), image)
	if err != nil {
		return Sealed{}, err
	}
	if described.Name != want.Name {
		return Sealed{}, fault.New(fault.Refuse, fault.Verify, "build it again under its own name",
			"module %s: its manifest.yaml is that of a module called %q", want, described.Name)
	}
	return Sealed{Seal: seal, Manifest: described}, nil
}

// Sealed is what a signed OCI manifest says of the module's content.
type Sealed struct {
	Seal     fsverity.Digest
	Manifest *module.Manifest
}

// checkSeal compares the seal with the tree that the layers gave, and returns the canonical tree
// and its image.
func checkSeal(root *tree.Node, seal fsverity.Digest) (*tree.Node, []byte, error) {
	canonical, err := ociimage.Canonical(root)
	if err != nil {
		return nil, nil, err
	}
	image, got, err := composefs.Build(canonical, composefs.V1)
	if err != nil {
		return nil, nil, fmt.Errorf("seal what was pulled: %w", err)
	}
	if got != seal {
		return nil, nil, fault.New(fault.Refuse, fault.Verify, "publish it again with powernode module publish, which seals it",
			"its seal is not that of its content: the signed manifest says %s, the layers give %s", seal, got)
	}
	return canonical, image, nil
}
