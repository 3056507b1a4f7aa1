package registry

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/oracle"
)

// listed returns the names of uploads in the directory.
func (s *server) listed(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(s.path, "blobs", uploadsName, "*-*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestUploadElsewhere pushes a blob with each request at another of two registries over one directory.
func TestUploadElsewhere(t *testing.T) {
	path := t.TempDir()
	one, two := newServer(t, options{path: path}), newServer(t, options{path: path})
	at := one.do("POST", "/v2/r/blobs/uploads/", "").header.Get("Location")
	if a := two.do("PATCH", at, "abc", "Content-Range", "0-2"); a.status != 202 || a.header.Get("Range") != "0-2" || a.header.Get("Location") != at {
		t.Fatalf("%+v", a)
	}
	if a := one.do("PATCH", at, "abc", "Content-Range", "0-2"); a.status != 416 || a.header.Get("Range") != "0-2" {
		t.Errorf("what the other one took already: %+v", a)
	}
	one.want("the next chunk", one.do("PATCH", at, "de"), 202, "")
	two.want("and back", two.do("PATCH", at, "fg"), 202, "")
	if a := one.do("GET", at, ""); a.status != 204 || a.header.Get("Range") != "0-6" {
		t.Errorf("%+v", a)
	}
	one.want("the end", one.do("PUT", at+"?digest="+sum("abcdefghi"), "hi"), 201, "")
	if a := two.do("GET", "/v2/r/blobs/"+sum("abcdefghi"), ""); a.body != "abcdefghi" {
		t.Errorf("%+v", a)
	}
	two.want("finished", two.do("PATCH", at, "x"), 404, "BLOB_UPLOAD_UNKNOWN")

	// The usual way of clients: begun, sent and ended by three requests.
	at = one.do("POST", "/v2/r/blobs/uploads/", "").header.Get("Location")
	one.want("all", one.do("PATCH", at, "whole"), 202, "")
	two.want("empty end", two.do("PUT", at+"?digest="+sum("whole"), ""), 201, "")
	// The same again; cancelled at the other one; and with the wrong digest there.
	at = two.do("POST", "/v2/r/blobs/uploads/", "").header.Get("Location")
	one.want("the same content", one.do("PUT", at+"?digest="+sum("whole"), "whole"), 201, "")
	at = one.do("POST", "/v2/r/blobs/uploads/", "").header.Get("Location")
	two.want("cancel", two.do("DELETE", at, ""), 204, "")
	one.want("cancelled", one.do("PATCH", at, "x"), 404, "BLOB_UPLOAD_UNKNOWN")
	at = one.do("POST", "/v2/r/blobs/uploads/", "").header.Get("Location")
	one.want("some", one.do("PATCH", at, "some"), 202, "")
	two.want("another digest", two.do("PUT", at+"?digest="+sum("any"), ""), 400, "DIGEST_INVALID")
	at = one.do("POST", "/v2/r/blobs/uploads/", "").header.Get("Location")
	two.want("another repository", two.do("PATCH", strings.Replace(at, "/v2/r/", "/v2/q/", 1), "x"), 404, "BLOB_UPLOAD_UNKNOWN")
	two.want("cancel", two.do("DELETE", at, ""), 204, "")
	if left := one.listed(t); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// holding is a body that has given some bytes and is waiting for more.
type holding struct {
	begun chan struct{}
	more  *io.PipeReader
	once  sync.Once
}

func (h *holding) Read(p []byte) (int, error) {
	n, err := h.more.Read(p)
	h.once.Do(func() { close(h.begun) })
	return n, err
}

// hold begins a request whose body goes on when the returned function is called.
func (s *server) hold(t *testing.T, method, path, first string) (finish func(rest string) int) {
	t.Helper()
	r, w := io.Pipe()
	body := &holding{begun: make(chan struct{}), more: r}
	req := httptest.NewRequestWithContext(t.Context(), method, path, body)
	req.SetBasicAuth("operator", "secret")
	status := make(chan int, 1)
	go func() {
		rec := httptest.NewRecorder()
		s.registry.ServeHTTP(rec, req)
		status <- rec.Code
	}()
	if _, err := io.WriteString(w, first); err != nil {
		t.Fatal(err)
	}
	<-body.begun
	return func(rest string) int {
		if _, err := io.WriteString(w, rest); err != nil {
			t.Error(err)
		}
		w.Close()
		return <-status
	}
}

// TestUploadOneWriter: while one registry takes a chunk, no other writes to the upload, nor ends it as an idle one.
func TestUploadOneWriter(t *testing.T) {
	path := t.TempDir()
	var late atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(late.Load())) }
	one, two := newServer(t, options{path: path, now: now}), newServer(t, options{path: path, now: now})
	at := one.do("POST", "/v2/r/blobs/uploads/", "").header.Get("Location")
	left := one.do("POST", "/v2/r/blobs/uploads/", "").header.Get("Location")
	finish := one.hold(t, http.MethodPatch, at, "abc")
	for _, s := range []*server{one, two} {
		s.want("a second writer", s.do("PATCH", at, "x"), 409, "BLOB_UPLOAD_INVALID")
		s.want("an end", s.do("PUT", at+"?digest="+sum("abc"), ""), 409, "BLOB_UPLOAD_INVALID")
		s.want("a cancellation", s.do("DELETE", at, ""), 409, "BLOB_UPLOAD_INVALID")
	}
	late.Store(int64(uploadIdle + time.Minute))
	two.want("anything", two.do("GET", "/v2/", ""), 200, "")
	two.want("ended, as idle", two.do("GET", left, ""), 404, "BLOB_UPLOAD_UNKNOWN")
	if got := len(two.listed(t)); got != 1 {
		t.Errorf("%d uploads are left, want the one that is written to", got)
	}
	if status := finish("def"); status != 202 {
		t.Fatal(status)
	}
	two.want("the end", two.do("PUT", at+"?digest="+sum("abcdefg"), "g"), 201, "")
}

// TestUploadWriterKilled: a process that dies while it writes to an upload doesn't keep others from it.
func TestUploadWriterKilled(t *testing.T) {
	flock := oracle.Path(t, "flock")
	s := newServer(t, options{})
	at := s.do("POST", "/v2/r/blobs/uploads/", "").header.Get("Location")
	s.want("some", s.do("PATCH", at, "some"), 202, "")
	writer := exec.CommandContext(t.Context(), flock, "--no-fork", s.listed(t)[0], "sh", "-c", "printf ' more' >> '"+s.listed(t)[0]+"'; echo locked; exec sleep 600")
	out, err := writer.StdoutPipe()
	if err == nil {
		err = writer.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	s.want("while it writes", s.do("PATCH", at, "x"), 409, "BLOB_UPLOAD_INVALID")
	if err := writer.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = writer.Wait() // it was killed
	if a := s.do("GET", at, ""); a.status != 204 || a.header.Get("Range") != "0-8" {
		t.Errorf("%+v", a)
	}
	s.want("afterwards", s.do("PUT", at+"?digest="+sum("some more."), "."), 201, "")
}

// TestUploadBlobIsNotUpload: the file of an upload that became a blob can't be written to by who had it open before.
func TestUploadBlobIsNotUpload(t *testing.T) {
	s := newServer(t, options{})
	at := s.do("POST", "/v2/r/blobs/uploads/", "").header.Get("Location")
	id := at[strings.LastIndex(at, "/")+1:]
	dir, err := s.registry.blobs.dir.Sub(uploadsName)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	f, err := dir.Open(fileName(id, "r"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s.want("finished", s.do("PUT", at+"?digest="+sum("blob"), "blob"), 201, "")
	if err := stillNamed(dir, fileName(id, "r"), f); !os.IsNotExist(err) {
		t.Errorf("the blob's file passes for an upload: %v", err)
	}
	// Another upload under that very name isn't the same either.
	if err := os.WriteFile(filepath.Join(s.path, "blobs", uploadsName, fileName(id, "r")), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := stillNamed(dir, fileName(id, "r"), f); !os.IsNotExist(err) {
		t.Errorf("the blob's file passes for another upload: %v", err)
	}
}

// TestUploadHashesOnce: what one registry took isn't read again for SHA-256, and what another took is.
func TestUploadHashesOnce(t *testing.T) {
	path := t.TempDir()
	one, two := newServer(t, options{path: path}), newServer(t, options{path: path})
	at := one.do("POST", "/v2/r/blobs/uploads/", "").header.Get("Location")
	id := at[strings.LastIndex(at, "/")+1:]
	summed := func(s *server) int64 {
		t.Helper()
		got, err := s.registry.uploads.take(id, "r")
		if err != nil {
			t.Fatal(err)
		}
		// A program that is just being started has a copy of the file until its exec: the lock isn't its.
		forked, err := unix.Dup(int(got.file.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(forked)
		if err := s.registry.uploads.keep(got); err != nil {
			t.Fatal(err)
		}
		if again, err := s.registry.uploads.take(id, "r"); err != nil {
			t.Error(err)
		} else if err := s.registry.uploads.keep(again); err != nil {
			t.Error(err)
		}
		return got.sum.size
	}
	one.want("chunk", one.do("PATCH", at, "abc"), 202, "")
	one.want("chunk", one.do("PATCH", at, "def"), 202, "")
	two.want("chunk", two.do("PATCH", at, "ghi"), 202, "")
	one.want("chunk", one.do("PATCH", at, "jkl"), 202, "")
	if a, b := summed(one), summed(two); a != 6 || b != 0 {
		t.Errorf("summed %d and %d bytes, want 6 and 0", a, b)
	}
	one.want("end", one.do("PUT", at+"?digest="+sum("abcdefghijkl"), ""), 201, "")
}

// TestUploadDiskFull fails each labelled operation of an upload in chunks: the caller is told, no half blob is served, and the
// same push succeeds afterwards.
func TestUploadDiskFull(t *testing.T) {
	var mu sync.Mutex
	failAt := -1
	s := newServer(t, options{hook: func(string) error {
		mu.Lock()
		defer mu.Unlock()
		failAt--
		if failAt == -1 {
			return syscall.ENOSPC
		}
		return nil
	}})
	arm := func(n int) { mu.Lock(); defer mu.Unlock(); failAt = n }
	push := func(content string) (last answer) {
		last = s.do("POST", "/v2/r/blobs/uploads/", "")
		if at := last.header.Get("Location"); last.status == 202 {
			if last = s.do("PATCH", at, content[:3]); last.status == 202 {
				last = s.do("PUT", at+"?digest="+sum(content), content[3:])
			}
		}
		return last
	}
	const contents = "abcdefghijklmnopqrstuvwxyz"
	failed := 0
	for n := 0; ; n++ {
		content := contents[n:]
		arm(n)
		a := push(content)
		arm(-1)
		if a.status == 201 {
			break
		}
		failed++
		s.want("push", a, http.StatusInsufficientStorage, "UNKNOWN")
		s.want("before", s.do("HEAD", "/v2/r/blobs/"+sum(content), ""), 404, "")
		s.want("again", push(content), 201, "")
		if got := s.do("GET", "/v2/r/blobs/"+sum(content), ""); got.body != content {
			t.Errorf("%d: %q", n, got.body)
		}
	}
	if failed < 6 {
		t.Errorf("%d operations failed", failed)
	}
}

// TestUploadsRace pushes by many clients at once, each request at one of three registries, while another one ends idle uploads.
func TestUploadsRace(t *testing.T) {
	path := t.TempDir()
	var servers []*server
	for range 3 {
		servers = append(servers, newServer(t, options{path: path}))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var sweeping, pushing sync.WaitGroup
	sweeping.Go(func() {
		for ctx.Err() == nil {
			servers[0].registry.uploads.mu.Lock()
			servers[0].registry.uploads.swept = time.Time{}
			servers[0].registry.uploads.mu.Unlock()
			if err := servers[0].registry.uploads.sweep(); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range 6 {
		pushing.Go(func() {
			content := bytes.Repeat([]byte{byte('a' + i%3)}, 300_000) // each content by two
			at := servers[i%3].do("POST", "/v2/r/blobs/uploads/", "").header.Get("Location")
			for n := range 3 {
				s := servers[(i+n)%3]
				s.want("chunk", s.as("operator", "PATCH", at, bytes.NewReader(content[n*100_000:(n+1)*100_000])), 202, "")
			}
			s := servers[(i+1)%3]
			s.want("end", s.do("PUT", at+"?digest="+sum(string(content)), ""), 201, "")
		})
	}
	pushing.Wait()
	cancel()
	sweeping.Wait()
	for i := range 3 {
		content := strings.Repeat(string(rune('a'+i)), 300_000)
		if a := servers[0].do("GET", "/v2/r/blobs/"+sum(content), ""); a.body != content {
			t.Errorf("%c came back changed", 'a'+i)
		}
	}
	if left := servers[0].listed(t); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
