package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// parts returns what the repository of a manifest must hold. The subject isn't among it: the specification lets a signature arrive before
// what it signs.
func (doc document) parts() db.Parts {
	var parts db.Parts
	if doc.Config != nil {
		parts.Blobs = append(parts.Blobs, string(doc.Config.Digest))
	}
	for _, list := range [][]ocispec.Descriptor{doc.Layers, doc.Blobs} {
		for _, d := range list {
			if !elsewhere(d.MediaType) {
				parts.Blobs = append(parts.Blobs, string(d.Digest))
			}
		}
	}
	for _, d := range doc.Manifests {
		parts.Manifests = append(parts.Manifests, string(d.Digest))
	}
	return parts
}

// elsewhere reports whether a layer of that type is by its nature not in the registry (image specification,
// "Non-Distributable Layers", and Docker's foreign layers before it).
func elsewhere(mediaType string) bool {
	return strings.HasPrefix(mediaType, "application/vnd.oci.image.layer.nondistributable.") || strings.HasPrefix(mediaType, "application/vnd.docker.image.rootfs.foreign.")
}

// checkParts refuses a manifest whose blobs or manifests the repository lacks.
func (g *Registry) checkParts(ctx context.Context, repository string, parts db.Parts) error {
	missing, err := g.index.Missing(ctx, repository, parts.Blobs, parts.Manifests)
	if err == nil && len(missing) > 0 {
		err = lacks(repository, missing[0])
	}
	return err
}

func lacks(repository, digest string) error {
	return refuse(http.StatusNotFound, codeManifestBlobUnknown, "%s lacks %s, which the manifest refers to", repository, digest)
}

// document reads a manifest that some repository holds from its file. A digest names one content for ever, so the index isn't asked.
func (g *Registry) document(digest string) (document, error) {
	var doc document
	f, err := g.blobs.open(digest)
	if err != nil {
		return doc, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err == nil {
		err = json.Unmarshal(data, &doc)
	}
	if err != nil {
		return doc, fmt.Errorf("read the manifest %s: %w", digest, err)
	}
	return doc, nil
}

// partsOf is the registry's db.PartsOf.
func (g *Registry) partsOf(digest string) (db.Parts, error) {
	doc, err := g.document(digest)
	return doc.parts(), err
}

// putInto puts a manifest, and its tag if there is one, into the index. A tag that attaches signatures to a registered module moves only to
// a manifest that holds all that the one before did, as cosign adds a signature: else moving it would delete them.
func (g *Registry) putInto(ctx context.Context, m db.Manifest, tag string, doc document) error {
	for {
		err := g.index.PutManifest(ctx, m, tag)
		if missing, ok := errors.AsType[*db.MissingError](err); ok {
			return lacks(missing.Repository, missing.Digest)
		}
		held, ok := errors.AsType[*db.TagHeldError](err)
		if !ok {
			return err
		}
		former, err := g.document(held.Former)
		if err != nil {
			return err
		}
		if !doc.extends(former) {
			return refuse(http.StatusConflict, codeDenied, "the tag %s in %s holds what is attached to a registered module: it moves only to a manifest with all that %s lists",
				tag, m.Repository, held.Former)
		}
		// Somebody may have moved it meanwhile.
		m.Extends = held.Former
	}
}

// extends reports whether doc has every descriptor of former as it is: signatures may be in their annotations.
func (doc document) extends(former document) bool {
	have := map[string]bool{}
	for _, d := range doc.listed() {
		have[d] = true
	}
	for _, d := range former.listed() {
		if !have[d] {
			return false
		}
	}
	return true
}

func (doc document) listed() []string {
	var list []string
	for _, descriptors := range [][]ocispec.Descriptor{doc.Layers, doc.Blobs, doc.Manifests} {
		for _, d := range descriptors {
			// Maps are written in the order of their keys, and nothing in a descriptor could fail.
			text, _ := json.Marshal(d)
			list = append(list, string(text))
		}
	}
	return list
}

// Records is a database that keeps registered modules. *db.DB is one.
type Records interface {
	RegisterHeld(ctx context.Context, m db.Module, parts db.PartsOf) (db.Module, error)
}

// Register makes a module of this registry known to r, if it is all there at that moment, however long before it was looked at. A refusal is
// fault.Refuse.
func (g *Registry) Register(ctx context.Context, r Records, m db.Module) (db.Module, error) {
	// Read beforehand, so that nobody waits for it.
	known := map[string]db.Parts{}
	digests := []string{m.Digest}
	for _, image := range m.Images {
		digests = append(digests, image.ManifestDigest)
	}
	for _, digest := range digests {
		parts, err := g.partsOf(digest)
		if err != nil {
			return db.Module{}, err
		}
		known[digest] = parts
	}
	out, err := r.RegisterHeld(ctx, m, func(digest string) (db.Parts, error) { return known[digest], nil })
	if missing, ok := errors.AsType[*db.MissingError](err); ok {
		return db.Module{}, fault.New(fault.Refuse, fault.Input, "push it again, and register it again",
			"register %s@%s: the registry doesn't hold %s any more", m.Repository, m.Digest, missing.Digest)
	}
	return out, err
}
