package registry

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"

	"github.com/powernode/powernode-agent/internal/platform/db"
)

// startUpload begins an upload, or does without one: the blob is mounted from another
// repository, or comes whole with this request.
func (g *Registry) startUpload(w http.ResponseWriter, r *http.Request, t target) error {
	if err := only(r, http.MethodPost); err != nil {
		return err
	}
	query := r.URL.Query()
	if digest, from := query.Get("mount"), query.Get("from"); digest != "" && from != "" {
		done, err := g.mount(w, r, t, digest, from)
		if done || err != nil {
			return err
		}
	}
	if digest := query.Get("digest"); digest != "" {
		s, err := g.uploads.startWhole(t.repository)
		if err != nil {
			return err
		}
		return g.finish(w, r, s, digest)
	}
	s, err := g.uploads.start(r.Context(), t.repository)
	if err != nil {
		return err
	}
	uploadHeader(w, s)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// mount links a blob of another repository into this one. done false asks for an ordinary upload.
func (g *Registry) mount(w http.ResponseWriter, r *http.Request, t target, digest, from string) (done bool, err error) {
	if !served(digest) || !ValidRepository(from) {
		return false, nil
	}
	size, err := g.index.Blob(r.Context(), from, digest)
	if errors.Is(err, db.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := g.index.LinkBlob(r.Context(), t.repository, digest, size); err != nil {
		return false, err
	}
	created(w, t.repository, digest)
	return true, nil
}

// upload is a request on an upload under way.
func (g *Registry) upload(w http.ResponseWriter, r *http.Request, t target) error {
	if err := only(r, http.MethodGet, http.MethodHead, http.MethodPatch, http.MethodPut, http.MethodDelete); err != nil {
		return err
	}
	s, err := g.uploads.take(t.reference, t.repository)
	if err != nil {
		return err
	}
	switch r.Method {
	case http.MethodPatch:
		if err := g.receive(r, s); err != nil {
			return err
		}
		if err := g.uploads.keep(s); err != nil {
			return err
		}
		uploadHeader(w, s)
		w.WriteHeader(http.StatusAccepted)
	case http.MethodPut:
		return g.finish(w, r, s, r.URL.Query().Get("digest"))
	case http.MethodDelete:
		g.uploads.drop(s)
		w.WriteHeader(http.StatusNoContent)
	default:
		if err := g.uploads.keep(s); err != nil {
			return err
		}
		uploadHeader(w, s)
		w.WriteHeader(http.StatusNoContent)
	}
	return nil
}

// finish takes the rest of the upload, checks it against the digest, and puts it into the
// repository: bytes first, then the index. The upload is over, however this ends.
func (g *Registry) finish(w http.ResponseWriter, r *http.Request, s *session, digest string) error {
	if !served(digest) {
		g.uploads.drop(s)
		return refuse(http.StatusBadRequest, codeDigestInvalid, "digest %.200q: %s", digest, wantDigest)
	}
	if err := g.receive(r, s); err != nil {
		return err
	}
	defer g.uploads.drop(s)
	got, err := s.digest(digest)
	if err != nil {
		return err
	}
	if got != digest {
		return refuse(http.StatusBadRequest, codeDigestInvalid, "what arrived has the digest %s, not %s", got, digest)
	}
	if err := g.adopt(s, digest); err != nil {
		return err
	}
	if err := g.index.LinkBlob(r.Context(), s.repository, digest, s.size); err != nil {
		return err
	}
	created(w, s.repository, digest)
	return nil
}

// adopt makes an upload's file the blob of that digest.
func (g *Registry) adopt(s *session, digest string) error {
	if s.name == "" {
		return g.blobs.adopt(s.file, digest)
	}
	return g.blobs.move(uploadsName, s.name, s.file, digest)
}

// receive appends the request's body to the upload. After an error of the caller's line the upload
// stays, if it has a name, to be resumed; after one of the registry's own, and where it can't fit, it is dropped.
func (g *Registry) receive(r *http.Request, s *session) error {
	if err := checkRange(r, s); err != nil {
		return g.interrupted(s, err)
	}
	room := g.maxBlob - s.size
	n, err := io.Copy(s, io.LimitReader(r.Body, room+1))
	switch {
	case n > room:
		g.uploads.drop(s)
		return refuse(http.StatusRequestEntityTooLarge, codeSizeInvalid, "a blob of more than %d bytes", g.maxBlob)
	case err == nil:
		return nil
	}
	if disk, ok := errors.AsType[*os.PathError](err); ok {
		g.uploads.drop(s)
		return fmt.Errorf("receive a blob for %s: %w", s.repository, g.blobs.dir.Diagnose(disk))
	}
	return g.interrupted(s, refuse(http.StatusBadRequest, codeUploadInvalid, "the body ended early, after %d bytes of the upload: %v", s.size, err))
}

// interrupted leaves an upload for another try, and returns err, or why it is over.
func (g *Registry) interrupted(s *session, err error) error {
	if s.name == "" {
		g.uploads.drop(s)
		return err
	}
	if lost := g.uploads.keep(s); lost != nil {
		return lost
	}
	return err
}

// rangePattern is the specification's own form of Content-Range: "<start>-<end>", both inclusive.
var rangePattern = regexp.MustCompile(`^([0-9]{1,18})-([0-9]{1,18})$`)

// checkRange refuses a chunk that doesn't begin where the upload ends.
func checkRange(r *http.Request, s *session) error {
	header := r.Header.Get("Content-Range")
	if header == "" {
		return nil
	}
	parts := rangePattern.FindStringSubmatch(header)
	if parts == nil {
		return refuse(http.StatusBadRequest, codeUploadInvalid, "Content-Range %.60q: want <start>-<end>", header)
	}
	// The pattern leaves nothing that could fail here.
	start, _ := strconv.ParseInt(parts[1], 10, 64)
	if start != s.size {
		e := refuse(http.StatusRequestedRangeNotSatisfiable, codeUploadInvalid, "the next chunk begins at %d, not at %d", s.size, start)
		e.header.Set("Location", location(s))
		e.header.Set("Range", received(s))
		return e
	}
	return nil
}

func location(s *session) string { return Root + s.repository + "/blobs/uploads/" + s.id }

// received renders what has arrived as clients know it; with nothing arrived that is "0-0" too.
func received(s *session) string { return "0-" + strconv.FormatInt(max(s.size-1, 0), 10) }

func uploadHeader(w http.ResponseWriter, s *session) {
	w.Header().Set("Location", location(s))
	w.Header().Set("Range", received(s))
	w.Header().Set("Docker-Upload-UUID", s.id)
}

func created(w http.ResponseWriter, repository, digest string) {
	w.Header().Set("Location", Root+repository+"/blobs/"+digest)
	w.Header().Set("Docker-Content-Digest", digest)
	w.WriteHeader(http.StatusCreated)
}
