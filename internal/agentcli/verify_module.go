package agentcli

import (
	"context"
	"errors"
	"strings"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/store"
)

// verifyStored verifies a module that the store has.
func (f *verifyFlags) verifyStored(ctx context.Context, subject string) (*verifyDoc, error) {
	st, err := openStore(f.stateDir)
	if err != nil {
		return nil, err
	}
	defer st.Close()
	m, err := findModule(st, subject)
	if err != nil {
		return nil, err
	}
	trust, err := boot.LoadTrust(f.trust)
	if err != nil {
		return nil, err
	}
	prover := assemble.Prover{Store: st, Verifier: trust.Verifier}
	proven, err := prover.Prove(ctx, assemble.Wanted{
		Name: m.Name, Version: m.Version, Repository: m.Repository, ManifestDigest: m.ManifestDigest,
	})
	if err != nil {
		return nil, err
	}
	return &verifyDoc{
		Kind: "module", Subject: subject, Name: m.Name, Version: m.Version, Digest: m.ManifestDigest,
		Seal: proven.Module.Seal, Objects: proven.Objects, SignedBy: proven.Signed.Signer(), Checks: proven.Checks(),
	}, nil
}

// findModule returns the store's module that a person means: by manifest digest, NAME@VERSION or
// NAME. Of several versions of a name, the current generation's counts.
func findModule(st *store.Store, subject string) (store.Module, error) {
	modules, listErr := st.ListModules()
	name, version, _ := strings.Cut(subject, "@")
	var found []store.Module
	for _, m := range modules {
		if m.ManifestDigest == subject || m.Name == name && (version == "" || version == m.Version) {
			found = append(found, m)
		}
	}
	if len(found) > 1 {
		if current, err := inCurrent(st, found); err == nil {
			found = current
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return store.Module{}, fault.New(fault.Refuse, fault.Input, "name a module of the store (powernode-agent introspect lists them), or a path",
			"%w", errors.Join(errors.New("there is no module, layout or file "+subject), listErr))
	default:
		return store.Module{}, fault.New(fault.Refuse, fault.Input, "say which, as NAME@VERSION or by its manifest digest",
			"the store has %d modules that %s could mean", len(found), subject)
	}
}

// inCurrent keeps the modules that are part of the current generation.
func inCurrent(st *store.Store, modules []store.Module) ([]store.Module, error) {
	n, err := st.Pointer(store.Current)
	if err != nil {
		return nil, err
	}
	g, err := st.Generation(n)
	if err != nil {
		return nil, err
	}
	var kept []store.Module
	for _, m := range modules {
		for _, in := range g.Modules {
			if in.ManifestDigest == m.ManifestDigest {
				kept = append(kept, m)
			}
		}
	}
	return kept, nil
}

// verifyLayout verifies the module in an OCI layout. Its name and version are what its manifest
// says; the trust policy's rules match the repository that the person names.
func (f *verifyFlags) verifyLayout(ctx context.Context, path string) (*verifyDoc, error) {
	if f.repository == "" {
		return nil, fault.New(fault.Refuse, fault.Input, "name it with --repository host/path",
			"the trust policy goes by repositories, and the layout %s has none", path)
	}
	trust, err := boot.LoadTrust(f.trust)
	if err != nil {
		return nil, err
	}
	layout, err := ociimage.OpenLayout(path)
	if err != nil {
		return nil, err
	}
	defer layout.Close()
	proven, err := assemble.ProveSource(ctx, layout, ociimage.Reference{}, assemble.SourceOptions{
		Verifier: trust.Verifier, Repository: f.repository, Arch: f.arch,
	})
	if err != nil {
		return nil, err
	}
	return &verifyDoc{
		Kind: "layout", Subject: path, Name: proven.Manifest.Name, Version: proven.Image.Annotations[module.AnnotationVersion],
		Digest: string(proven.Image.Digest), Seal: proven.Seal, Objects: int(proven.Stats.Objects),
		SignedBy: proven.Signed.Signer(), Checks: proven.Checks(),
	}, nil
}
