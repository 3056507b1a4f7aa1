package registry

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
)

const (
	// maxUploads is how many uploads may be under way at once.
	maxUploads = 128
	// uploadIdle is how long an upload may lie untouched.
	uploadIdle = 30 * time.Minute
)

// session is one upload under way. Its file has no name, so that nothing of it is left after a
// crash or a cancellation; its hash goes along with the bytes, so that nothing is read twice.
type session struct {
	id         string
	repository string
	used       time.Time // guarded by uploads.mu

	// mu is held while a request works on the upload.
	mu   sync.Mutex
	file *os.File
	hash hash.Hash
	size int64
}

// digest returns the digest of what has arrived, by the algorithm of want. SHA-256 went along; for the other, which
// clients name at the end only, what arrived is read again.
func (s *session) digest(want string) (string, error) {
	if !strings.HasPrefix(want, longPrefix) {
		return "sha256:" + hex.EncodeToString(s.hash.Sum(nil)), nil
	}
	long := sha512.New()
	if _, err := io.Copy(long, io.NewSectionReader(s.file, 0, s.size)); err != nil {
		return "", fmt.Errorf("read an upload for %s again: %w", s.repository, err)
	}
	return longPrefix + hex.EncodeToString(long.Sum(nil)), nil
}

// Write appends to the upload.
func (s *session) Write(p []byte) (int, error) {
	n, err := s.file.Write(p)
	// hash.Hash never returns an error.
	_, _ = s.hash.Write(p[:n])
	s.size += int64(n)
	return n, err
}

// uploads are the sessions by ID.
type uploads struct {
	dir *durable.Dir
	now func() time.Time

	mu       sync.Mutex
	sessions map[string]*session
}

func newUploads(dir *durable.Dir, now func() time.Time) *uploads {
	return &uploads{dir: dir, now: now, sessions: map[string]*session{}}
}

// start begins an upload and returns it locked.
func (u *uploads) start(repository string) (*session, error) {
	u.expire()
	f, err := u.dir.Temp(".", 0o600, blobLabel)
	if err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.sessions) >= maxUploads {
		f.Close()
		return nil, refuse(http.StatusTooManyRequests, codeTooManyRequests, "%d uploads are under way; finish or cancel some", maxUploads)
	}
	s := &session{id: rand.Text(), repository: repository, used: u.now(), file: f, hash: sha256.New()}
	s.mu.Lock()
	u.sessions[s.id] = s
	return s, nil
}

// take returns the upload of that ID in that repository, locked. Who takes it releases or drops it.
func (u *uploads) take(id, repository string) (*session, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.sessions[id]
	if s == nil || s.repository != repository {
		return nil, refuse(http.StatusNotFound, codeUploadUnknown, "no such upload in %s; begin again", repository)
	}
	if !s.mu.TryLock() {
		return nil, refuse(http.StatusConflict, codeUploadInvalid, "another request is writing to this upload")
	}
	s.used = u.now()
	return s, nil
}

// release gives the upload back for further requests.
func (u *uploads) release(s *session) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s.used = u.now()
	s.mu.Unlock()
}

// drop ends an upload that the caller has taken. Its file vanishes unless it was given a name.
func (u *uploads) drop(s *session) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.sessions, s.id)
	// Nothing was promised of what is in it.
	_ = s.file.Close()
	s.mu.Unlock()
}

// expire ends the uploads that nobody touched for uploadIdle.
func (u *uploads) expire() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for id, s := range u.sessions {
		if u.now().Sub(s.used) > uploadIdle && s.mu.TryLock() {
			delete(u.sessions, id)
			_ = s.file.Close()
			s.mu.Unlock()
		}
	}
}

// close ends every upload that no request is working on.
func (u *uploads) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for id, s := range u.sessions {
		if s.mu.TryLock() {
			delete(u.sessions, id)
			_ = s.file.Close()
			s.mu.Unlock()
		}
	}
}
