// Package registry is the platform's own OCI registry: the HTTP interface of the OCI
// distribution specification 1.1 over a directory of blobs by digest and an index in the
// platform's database.
//
// It promises that what it serves under a digest has that digest, that content is visible in the
// repositories that it was pushed to and in no other, that a push which was answered with
// success survives a power cut, and that a cut one leaves nothing behind for longer than half an
// hour. It stores what it is given byte for byte and doesn't judge modules. Operators may delete,
// from a repository, what no registered module is made of, nor anything that is attached to one:
// a deployed digest stays readable with its signatures, and no blob's file is ever removed.
// Several processes may be one registry, over one directory and one index. It trusts the caller
// that it is told, its directory, and its index.
package registry

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// Root is the path below which the registry answers.
const Root = "/v2/"

// Index remembers what the repositories hold. *db.DB is one. Methods that look up something
// return db.ErrNotFound where it isn't there.
type Index interface {
	LinkBlob(ctx context.Context, repository, digest string, size int64) error
	Blob(ctx context.Context, repository, digest string) (int64, error)
	Missing(ctx context.Context, repository string, blobs, manifests []string) ([]string, error)
	// PutManifest returns a *db.MissingError where m's parts aren't all there, and a *db.TagHeldError where signatures of registered modules would be lost.
	PutManifest(ctx context.Context, m db.Manifest, tag string) error
	Manifest(ctx context.Context, repository, reference string) (db.Manifest, error)
	Tags(ctx context.Context, repository, last string, limit int) ([]string, error)
	Repositories(ctx context.Context, last string, limit int) ([]string, error)
	HasRepository(ctx context.Context, repository string) (bool, error)
	// Deletions return db.ErrInUse for what registered modules, and their signatures, are made of.
	DeleteTag(ctx context.Context, repository, tag string, parts db.PartsOf) error
	DeleteManifest(ctx context.Context, repository, digest string, parts db.PartsOf) error
	DeleteBlob(ctx context.Context, repository, digest string, parts db.PartsOf) error
	Referrers(ctx context.Context, repository, subject, artifactType, last string, limit int) ([]db.Manifest, error)
}

// Caller is who makes a request, as far as the registry cares.
type Caller struct {
	// Operator may read everything.
	Operator bool
	// MayPush may write everything.
	MayPush bool
	// Changing returns the context in which a manifest is put, or something is deleted, on the caller's behalf; nil leaves it as it is.
	Changing func(ctx context.Context, what Change, repository, reference string) context.Context
	// MayPull says whether any other caller may read a repository. A repository that it may not
	// read doesn't exist for it.
	MayPull func(ctx context.Context, repository string) (bool, error)
}

// Change is what a caller changes.
type Change string

// The changes.
const (
	ChangePush   Change = "push"
	ChangeDelete Change = "delete"
)

// Options is what a Registry is made of.
type Options struct {
	// Dir holds the blobs. It belongs to the registry alone.
	Dir   *durable.Dir
	Index Index
	// Authenticate says who makes a request; nil for nobody, and TooMany for who has to wait.
	Authenticate func(*http.Request) (*Caller, error)
	Logger       *slog.Logger
	// MaxBlob bounds a blob in bytes; 0 means DefaultMaxBlob.
	MaxBlob int64
	// Now tells the time by which idle uploads end; nil means time.Now.
	Now func() time.Time
}

// DefaultMaxBlob is the largest blob that is taken, in bytes: far above any module's layer, and
// low enough that one endless upload meets it before most disks are full.
const DefaultMaxBlob = 64 << 30

// Registry is an open registry and its http.Handler.
type Registry struct {
	blobs        blobs
	index        Index
	authenticate func(*http.Request) (*Caller, error)
	log          *slog.Logger
	uploads      *uploads
	maxBlob      int64
}

// New opens the registry in o.Dir.
func New(o Options) *Registry {
	if o.MaxBlob == 0 {
		o.MaxBlob = DefaultMaxBlob
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Registry{
		blobs: blobs{o.Dir}, index: o.Index, authenticate: o.Authenticate, log: o.Logger,
		uploads: newUploads(o.Dir, o.Now), maxBlob: o.MaxBlob,
	}
}

// ServeHTTP answers everything below Root.
func (g *Registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	w = keepMoving(w, r)
	if err := g.serve(w, r); err != nil {
		g.answer(w, r, err)
	}
}

func (g *Registry) serve(w http.ResponseWriter, r *http.Request) error {
	caller, err := g.authenticate(r)
	switch {
	case err != nil:
		return err
	case caller == nil:
		return unauthorized()
	}
	t, err := parsePath(strings.TrimPrefix(r.URL.Path, Root))
	if err != nil {
		return err
	}
	if err := authorize(r, caller, t); err != nil {
		return err
	}
	if err := g.uploads.sweep(); err != nil {
		g.log.Warn("registry: idle uploads couldn't be looked for", "error", err)
	}
	if what := changes(r, t); what != "" && caller.Changing != nil {
		r = r.WithContext(caller.Changing(r.Context(), what, t.repository, t.reference))
	}
	serve := map[kind]func(http.ResponseWriter, *http.Request, target) error{
		ping: g.ping, catalog: g.catalog, tags: g.tags, manifest: g.manifest, blob: g.blob, startUpload: g.startUpload, upload: g.upload, referrers: g.referrers,
	}[t.kind]
	return serve(w, r, t)
}

// changes says what a request changes that others see at once; "" for nothing. A blob is nothing without a manifest.
func changes(r *http.Request, t target) Change {
	switch {
	case t.kind == manifest && r.Method == http.MethodPut:
		return ChangePush
	case (t.kind == manifest || t.kind == blob) && r.Method == http.MethodDelete:
		return ChangeDelete
	}
	return ""
}

// authorize lets operators read everything, and write it where they may; others read what they may pull.
func authorize(r *http.Request, caller *Caller, t target) error {
	if t.kind == ping {
		return nil
	}
	writes := r.Method != http.MethodGet && r.Method != http.MethodHead || t.kind == upload || t.kind == startUpload
	switch {
	case caller.MayPush, caller.Operator && !writes:
		return nil
	case caller.Operator:
		return refuse(http.StatusForbidden, codeDenied, "pushing needs an operator token with the role deploy")
	case t.kind == catalog || writes:
		return refuse(http.StatusForbidden, codeDenied, "a node may pull the repositories of its modules, and nothing else")
	}
	may, err := caller.MayPull(r.Context(), t.repository)
	if err != nil {
		return err
	}
	if !may {
		return refuse(http.StatusNotFound, codeNameUnknown, "no repository %s for this caller", t.repository)
	}
	return nil
}

func (g *Registry) ping(w http.ResponseWriter, r *http.Request, _ target) error {
	if err := only(r, http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	return writeJSON(w, "application/json", struct{}{})
}

// unknown turns the index's "not found" into the given refusal.
func unknown(err error, code, format string, args ...any) error {
	if errors.Is(err, db.ErrNotFound) {
		return refuse(http.StatusNotFound, code, format, args...)
	}
	return err
}
