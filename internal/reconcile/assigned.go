package reconcile

import (
	"context"

	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/nodeclient"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/signature"
)

// Origin says by whose word a module is wanted.
type Origin string

// The origins.
const (
	ByPlatform Origin = "platform"
	// Here is the node's own administrator. Such a module has no ID.
	Here Origin = "local"
)

// Assigned is a module that the node is to run.
type Assigned struct {
	nodeapi.Module
	Origin Origin
	// Refused is why it can't be used although it is wanted; nil where nothing is known against it.
	Refused error
	// Accept judges it by the digest of this machine's manifest, once Look has found that; nil accepts all.
	Accept func(manifest string) error
}

// AsAssigned returns a platform's list as it is.
func AsAssigned(list *nodeapi.ModuleList) []Assigned {
	all := make([]Assigned, len(list.Modules))
	for i, m := range list.Modules {
		all[i] = Assigned{Module: m, Origin: ByPlatform}
	}
	return all
}

// check refuses what can't be a module.
func (a Assigned) check() error {
	if a.Refused != nil {
		return a.Refused
	}
	m := a.Module
	if a.Origin == Here && m.ID == "" {
		m.ID = "local" // what the platform never assigned has none
	}
	return nodeclient.CheckModule(m)
}

// Refer returns the module that a reference of an image, "host/path[:tag|@digest]", means now, as its signed manifest
// names it. Nothing of it is proven yet; its Digest is that of this machine's image.
func (r *Reconciler) Refer(ctx context.Context, reference string) (nodeapi.Module, error) {
	ref, err := ociimage.ParseReference(reference)
	if err != nil {
		return nodeapi.Module{}, err
	}
	if ref.Tag == "" && ref.Digest == "" {
		ref.Tag = "latest"
	}
	image, err := r.source.Resolve(ctx, ref, r.config.Arch)
	if err != nil {
		return nodeapi.Module{}, err
	}
	m := nodeapi.Module{Repository: ref.Repository, Digest: string(image.Digest)}
	m.Name, m.Version, err = signature.ModuleOf(image.Manifest)
	return m, err
}
