package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/powernode/powernode-agent/internal/platform/db"
)

// page is how many tags, repositories or referrers one answer holds at most. Known clients don't
// follow the referrers' pages, so that it is more than anyone attaches.
const page = 1000

// Manifest returns a manifest's media type, digest and bytes. reference is a tag or a digest.
// An error that wraps db.ErrNotFound says that the repository doesn't hold it.
func (g *Registry) Manifest(ctx context.Context, repository, reference string) (mediaType, digest string, data []byte, err error) {
	m, err := g.index.Manifest(ctx, repository, reference)
	if err != nil {
		return "", "", nil, fmt.Errorf("manifest %s in %s: %w", reference, repository, err)
	}
	f, err := g.blobs.open(m.Digest)
	if err != nil {
		return "", "", nil, err
	}
	defer f.Close()
	data, err = io.ReadAll(io.LimitReader(f, maxManifest))
	return m.MediaType, m.Digest, data, err
}

// OpenBlob opens a blob that a repository holds, of which no more than size bytes are wanted.
func (g *Registry) OpenBlob(ctx context.Context, repository, digest string, size int64) (io.ReadCloser, error) {
	f, err := g.openBlob(ctx, repository, digest)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(f, size+1), f}, nil
}

func (g *Registry) openBlob(ctx context.Context, repository, digest string) (*os.File, error) {
	if _, err := g.index.Blob(ctx, repository, digest); err != nil {
		return nil, fmt.Errorf("blob %s in %s: %w", digest, repository, err)
	}
	return g.blobs.open(digest)
}

// contentHeader says which content follows. It never changes, so caches may keep it.
func contentHeader(w http.ResponseWriter, mediaType, digest string) {
	h := w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Docker-Content-Digest", digest)
	h.Set("ETag", `"`+digest+`"`)
	h.Set("X-Content-Type-Options", "nosniff")
}

func (g *Registry) manifest(w http.ResponseWriter, r *http.Request, t target) error {
	switch r.Method {
	case http.MethodPut:
		return g.putManifest(w, r, t)
	case http.MethodDelete:
		return g.deleteManifest(w, r, t)
	}
	if err := only(r, http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete); err != nil {
		return err
	}
	mediaType, digest, data, err := g.Manifest(r.Context(), t.repository, t.reference)
	if err != nil {
		return unknown(err, codeManifestUnknown, "no manifest %s in %s", t.reference, t.repository)
	}
	contentHeader(w, mediaType, digest)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	return nil
}

func (g *Registry) blob(w http.ResponseWriter, r *http.Request, t target) error {
	if r.Method == http.MethodDelete {
		return g.deleteBlob(w, r, t)
	}
	if err := only(r, http.MethodGet, http.MethodHead, http.MethodDelete); err != nil {
		return err
	}
	f, err := g.openBlob(r.Context(), t.repository, t.reference)
	if err != nil {
		return unknown(err, codeBlobUnknown, "no blob %s in %s", t.reference, t.repository)
	}
	defer f.Close()
	contentHeader(w, "application/octet-stream", t.reference)
	http.ServeContent(w, r, "", time.Time{}, f)
	return nil
}

func (g *Registry) tags(w http.ResponseWriter, r *http.Request, t target) error {
	if err := only(r, http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	has, err := g.index.HasRepository(r.Context(), t.repository)
	switch {
	case err != nil:
		return err
	case !has:
		return refuse(http.StatusNotFound, codeNameUnknown, "no repository %s", t.repository)
	}
	list, err := g.listed(w, r, func(last string, limit int) ([]string, error) {
		return g.index.Tags(r.Context(), t.repository, last, limit)
	})
	if err != nil {
		return err
	}
	return writeJSON(w, "application/json", map[string]any{"name": t.repository, "tags": list})
}

func (g *Registry) catalog(w http.ResponseWriter, r *http.Request, _ target) error {
	if err := only(r, http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	list, err := g.listed(w, r, func(last string, limit int) ([]string, error) {
		return g.index.Repositories(r.Context(), last, limit)
	})
	if err != nil {
		return err
	}
	return writeJSON(w, "application/json", map[string]any{"repositories": list})
}

// listed reads one page of names as the parameters n and last ask, and links to the next.
func (g *Registry) listed(w http.ResponseWriter, r *http.Request, read func(last string, limit int) ([]string, error)) ([]string, error) {
	limit := page
	if s := r.URL.Query().Get("n"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			return nil, refuse(http.StatusBadRequest, codeUnsupported, "n=%.20s: want a number of names", s)
		}
		limit = min(n, page)
	}
	if limit == 0 {
		return []string{}, nil
	}
	list, err := read(r.URL.Query().Get("last"), limit+1)
	if err != nil || len(list) <= limit {
		return list, err
	}
	list = list[:limit]
	linkNext(w, r, url.Values{"n": {strconv.Itoa(limit)}, "last": {list[limit-1]}})
	return list, nil
}

func linkNext(w http.ResponseWriter, r *http.Request, query url.Values) {
	next := url.URL{Path: r.URL.Path, RawQuery: query.Encode()}
	w.Header().Set("Link", "<"+next.String()+`>; rel="next"`)
}

// referrers answers with an index of the manifests whose subject is the digest; a digest that
// nothing refers to, also one that isn't there, has an empty index.
func (g *Registry) referrers(w http.ResponseWriter, r *http.Request, t target) error {
	if err := only(r, http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	query := r.URL.Query()
	artifactType := query.Get("artifactType")
	list, err := g.index.Referrers(r.Context(), t.repository, t.reference, artifactType, query.Get("last"), page+1)
	if err != nil {
		return err
	}
	if artifactType != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	if len(list) > page {
		list = list[:page]
		next := url.Values{"last": {list[page-1].Digest}}
		if artifactType != "" {
			next.Set("artifactType", artifactType)
		}
		linkNext(w, r, next)
	}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	index.SchemaVersion = 2
	for _, m := range list {
		d, err := referrer(m)
		if err != nil {
			return err
		}
		index.Manifests = append(index.Manifests, d)
	}
	return writeJSON(w, ocispec.MediaTypeImageIndex, index)
}

func referrer(m db.Manifest) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: m.MediaType, Digest: digestOf(m.Digest), Size: m.Size, ArtifactType: m.ArtifactType}
	if m.Annotations == "" {
		return d, nil
	}
	if err := json.Unmarshal([]byte(m.Annotations), &d.Annotations); err != nil {
		return d, fmt.Errorf("annotations of %s in %s: %w", m.Digest, m.Repository, err)
	}
	return d, nil
}
