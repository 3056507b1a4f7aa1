package registry

import (
	"errors"
	"net/http"
	"strings"

	"github.com/powernode/powernode-agent/internal/platform/db"
)

// What is deleted is gone from its repository at once. Its file stays: another platform over the same files may be
// linking it into another repository at this moment, and backups rely on files that never vanish.

// deletion turns the index's errors into refusals.
func deletion(err error, code string, t target) error {
	if errors.Is(err, db.ErrInUse) {
		return refuse(http.StatusConflict, codeDenied, "%s in %s belongs to a registered module, or to its signatures: what a node may run stays readable, and provable",
			t.reference, t.repository)
	}
	return unknown(err, code, "no %s in %s", t.reference, t.repository)
}

// deleteManifest deletes a tag, or a manifest with all its tags (distribution specification, "Content Management").
func (g *Registry) deleteManifest(w http.ResponseWriter, r *http.Request, t target) error {
	remove := g.index.DeleteTag
	if strings.Contains(t.reference, ":") {
		remove = g.index.DeleteManifest
	}
	if err := remove(r.Context(), t.repository, t.reference, g.partsOf); err != nil {
		return deletion(err, codeManifestUnknown, t)
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// deleteBlob takes a blob out of a repository.
func (g *Registry) deleteBlob(w http.ResponseWriter, r *http.Request, t target) error {
	if err := g.index.DeleteBlob(r.Context(), t.repository, t.reference, g.partsOf); err != nil {
		return deletion(err, codeBlobUnknown, t)
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}
