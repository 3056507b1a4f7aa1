package assemble

import (
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/store"
)

// Manifest returns the manifest.yaml of a module in the store, by the digest of its OCI manifest. The record's documents are
// those that the digest names; its signature was checked when the module came, and isn't again.
func Manifest(st *store.Store, digest string) (*module.Manifest, error) {
	rec, err := st.SignedModule(digest)
	if err != nil {
		return nil, err
	}
	image, err := ociimage.ParseImage(rec.Manifest, rec.Config)
	if err != nil {
		return nil, err
	}
	return manifestIn(rec.Name, image)
}

// manifestIn reads the manifest.yaml out of the documents of a module's image.
func manifestIn(what string, image *ociimage.Image) (*module.Manifest, error) {
	label, ok := image.Labels[module.LabelManifest]
	if !ok {
		return nil, fault.New(fault.Refuse, fault.Verify, "build it with powernode module build",
			"module %s: its config has no manifest.yaml (label %s)", what, module.LabelManifest)
	}
	m, err := module.ParseManifest([]byte(label))
	if err != nil {
		return nil, fault.New(fault.Refuse, fault.Verify, fault.HintOf(err), "module %s: its manifest.yaml: %w", what, err)
	}
	return m, nil
}
