package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/powernode/powernode-agent/internal/platform/db"
)

// What is deleted is gone from its repository at once. Its file stays: another platform over the same files may be
// linking it into another repository at this moment, and backups rely on files that never vanish.

// inUse refuses to delete what nodes may need.
func inUse(t target) error {
	return refuse(http.StatusConflict, codeDenied, "%s in %s belongs to a registered module: what a node may run stays readable", t.reference, t.repository)
}

// deleteManifest deletes a tag, or a manifest with all its tags (distribution specification, "Content Management").
func (g *Registry) deleteManifest(w http.ResponseWriter, r *http.Request, t target) error {
	remove := g.index.DeleteTag
	if strings.Contains(t.reference, ":") {
		remove = g.index.DeleteManifest
	}
	if err := remove(r.Context(), t.repository, t.reference); err != nil {
		return deletion(err, codeManifestUnknown, t)
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// deletion turns the index's errors into refusals.
func deletion(err error, code string, t target) error {
	if errors.Is(err, db.ErrInUse) {
		return inUse(t)
	}
	return unknown(err, code, "no %s in %s", t.reference, t.repository)
}

// deleteBlob takes a blob out of a repository.
func (g *Registry) deleteBlob(w http.ResponseWriter, r *http.Request, t target) error {
	images, err := g.index.RegisteredImages(r.Context(), t.repository)
	if err != nil {
		return err
	}
	for _, digest := range images {
		_, _, data, err := g.Manifest(r.Context(), t.repository, digest)
		if errors.Is(err, db.ErrNotFound) {
			continue // registered with another registry
		}
		if err != nil {
			return err
		}
		var image ocispec.Manifest
		if err := json.Unmarshal(data, &image); err != nil {
			return fmt.Errorf("manifest %s in %s: %w", digest, t.repository, err)
		}
		if slices.ContainsFunc(append(image.Layers, image.Config), func(d ocispec.Descriptor) bool { return string(d.Digest) == t.reference }) {
			return inUse(t)
		}
	}
	if err := g.index.DeleteBlob(r.Context(), t.repository, t.reference); err != nil {
		return deletion(err, codeBlobUnknown, t)
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}
