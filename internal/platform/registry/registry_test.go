package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// server is a registry on loopback, over a real database and a real directory. "operator" may do
// everything, "node" may pull what is below "assigned".
type server struct {
	*httptest.Server
	t        *testing.T
	registry *Registry
	path     string
}

type options struct {
	path    string
	hook    durable.Hook
	maxBlob int64
	now     func() time.Time
}

func newServer(t *testing.T, o options) *server {
	t.Helper()
	if o.path == "" {
		o.path = t.TempDir()
	}
	dir, err := durable.MakeDir(filepath.Join(o.path, "blobs"), 0o700, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir.Close()
	if dir, err = durable.OpenDir(filepath.Join(o.path, "blobs"), o.hook); err != nil {
		t.Fatal(err)
	}
	index, err := db.Open(t.Context(), db.Options{Path: filepath.Join(o.path, "index.db"), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	g := New(Options{
		Dir: dir, Index: index, MaxBlob: o.maxBlob, Now: o.now,
		Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
		Authenticate: func(r *http.Request) (*Caller, error) {
			user, password, _ := r.BasicAuth()
			switch {
			case password != "secret":
				return nil, nil
			case user == "operator":
				return &Caller{Operator: true, MayPush: true}, nil
			default:
				return &Caller{MayPull: func(_ context.Context, repository string) (bool, error) {
					return strings.HasPrefix(repository, "assigned/"), nil
				}}, nil
			}
		},
	})
	s := &server{httptest.NewServer(g), t, g, o.path}
	t.Cleanup(func() {
		s.Close()
		index.Close()
		dir.Close()
	})
	return s
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimSpace(p))
	return len(p), nil
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) code() string {
	var doc struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal([]byte(a.body), &doc) != nil || len(doc.Errors) != 1 || doc.Errors[0].Message == "" {
		return ""
	}
	return doc.Errors[0].Code
}

// do makes a request as the operator. headers are names and values in turn.
func (s *server) do(method, path, body string, headers ...string) answer {
	s.t.Helper()
	return s.as("operator", method, path, strings.NewReader(body), headers...)
}

func (s *server) as(user, method, path string, body io.Reader, headers ...string) answer {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.URL+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	if user != "" {
		req.SetBasicAuth(user, "secret")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := s.Client().Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(data)}
}

func (s *server) want(what string, a answer, status int, code string) {
	s.t.Helper()
	if a.status != status || a.code() != code {
		s.t.Errorf("%s: status %d, code %q, %.300s; want %d, %q", what, a.status, a.code(), a.body, status, code)
	}
}

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return "sha256:" + hex.EncodeToString(h[:])
}

func (s *server) pushBlob(repository, content string) string {
	s.t.Helper()
	a := s.do("POST", "/v2/"+repository+"/blobs/uploads/?digest="+sum(content), content)
	s.want("push "+repository, a, http.StatusCreated, "")
	return sum(content)
}

func descriptor(content, mediaType string) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, sum(content), len(content))
}

// imageManifest returns an image manifest over an empty config and one layer.
func imageManifest(layer, extra string) string {
	return `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":` + descriptor("{}", "application/vnd.oci.empty.v1+json") +
		`,"layers":[` + descriptor(layer, ocispec.MediaTypeImageLayerGzip) + `]` + extra + `}`
}

func (s *server) pushManifest(repository, reference, doc string) answer {
	s.t.Helper()
	return s.do("PUT", "/v2/"+repository+"/manifests/"+reference, doc, "Content-Type", ocispec.MediaTypeImageManifest)
}

func TestPing(t *testing.T) {
	s := newServer(t, options{})
	for _, user := range []string{"operator", "node"} {
		a := s.as(user, "GET", "/v2/", nil)
		if a.status != 200 || a.header.Get("Docker-Distribution-API-Version") != "registry/2.0" {
			t.Errorf("%s: %+v", user, a)
		}
	}
	a := s.as("", "GET", "/v2/", nil)
	s.want("nobody", a, http.StatusUnauthorized, "UNAUTHORIZED")
	if got := a.header.Get("WWW-Authenticate"); !strings.HasPrefix(got, `Basic realm=`) {
		t.Errorf("challenge %q", got)
	}
}

func TestBlobs(t *testing.T) {
	s := newServer(t, options{})
	const content = "0123456789"
	path := "/v2/a/b/blobs/" + sum(content)
	s.want("before", s.do("GET", path, ""), 404, "BLOB_UNKNOWN")
	s.pushBlob("a/b", content)
	s.pushBlob("a/b", content) // once more is no error

	for name, tc := range map[string]struct {
		headers []string
		status  int
		body    string
	}{
		"whole":         {nil, 200, content},
		"middle":        {[]string{"Range", "bytes=2-4"}, 206, "234"},
		"resumed":       {[]string{"Range", "bytes=7-"}, 206, "789"},
		"last":          {[]string{"Range", "bytes=-1"}, 206, "9"},
		"if unchanged":  {[]string{"Range", "bytes=7-", "If-Range", `"` + sum(content) + `"`}, 206, "789"},
		"if changed":    {[]string{"Range", "bytes=7-", "If-Range", `"other"`}, 200, content},
		"in cache":      {[]string{"If-None-Match", `"` + sum(content) + `"`}, 304, ""},
		"past the end":  {[]string{"Range", "bytes=10-"}, 416, "invalid range: failed to overlap\n"},
		"senseless":     {[]string{"Range", "bytes=9-1"}, 416, "invalid range\n"},
		"other content": {[]string{"Accept", "text/html"}, 200, content},
	} {
		a := s.do("GET", path, "", tc.headers...)
		if a.status != tc.status || a.body != tc.body {
			t.Errorf("%s: %d %q, want %d %q", name, a.status, a.body, tc.status, tc.body)
		}
		if a.status < 300 && (a.header.Get("Docker-Content-Digest") != sum(content) || a.header.Get("Accept-Ranges") != "bytes") {
			t.Errorf("%s: header %v", name, a.header)
		}
	}
	head := s.do("HEAD", path, "")
	if head.status != 200 || head.header.Get("Content-Length") != "10" || head.body != "" {
		t.Errorf("HEAD: %+v", head)
	}
	s.want("another repository", s.do("GET", "/v2/a/blobs/"+sum(content), ""), 404, "BLOB_UNKNOWN")
	put := s.do("PUT", path, "")
	s.want("put", put, 405, "UNSUPPORTED")
	if put.header.Get("Allow") == "" {
		t.Error("405 without Allow")
	}
}

func TestUploads(t *testing.T) {
	s := newServer(t, options{})
	start := func() string {
		t.Helper()
		a := s.do("POST", "/v2/r/blobs/uploads/", "")
		if a.status != 202 || a.header.Get("Docker-Upload-UUID") == "" || !strings.HasPrefix(a.header.Get("Location"), "/v2/r/blobs/uploads/") {
			t.Fatalf("start: %+v", a)
		}
		return a.header.Get("Location")
	}
	patch := func(at, body, contentRange string, status int, received string) {
		t.Helper()
		a := s.do("PATCH", at, body, "Content-Range", contentRange, "Content-Type", "application/octet-stream")
		if a.status != status || a.header.Get("Range") != received {
			t.Errorf("patch %s: %d, Range %q; want %d, %q", contentRange, a.status, a.header.Get("Range"), status, received)
		}
	}

	// In chunks, with one sent twice and one too early.
	at := start()
	patch(at, "abc", "0-2", 202, "0-2")
	patch(at, "abc", "0-2", 416, "0-2")
	patch(at, "xyz", "5-7", 416, "0-2")
	patch(at, "de", "3-4", 202, "0-4")
	if a := s.do("GET", at, ""); a.status != 204 || a.header.Get("Range") != "0-4" || a.header.Get("Location") != at {
		t.Errorf("status: %+v", a)
	}
	s.want("range", s.do("PATCH", at, "f", "Content-Range", "bytes 5-5/6"), 400, "BLOB_UPLOAD_INVALID")
	if a := s.do("PUT", at+"?digest="+sum("abcdef"), "f"); a.status != 201 || a.header.Get("Location") != "/v2/r/blobs/"+sum("abcdef") {
		t.Errorf("finish: %+v", a)
	}
	s.want("finished twice", s.do("PUT", at+"?digest="+sum("abcdef"), ""), 404, "BLOB_UPLOAD_UNKNOWN")

	// Whole, in the last request; empty; without the slash.
	s.want("monolithic", s.do("PUT", start()+"?digest="+sum("whole"), "whole"), 201, "")
	s.want("empty", s.do("PUT", start()+"?digest="+sum(""), ""), 201, "")
	s.want("no slash", s.do("POST", "/v2/r/blobs/uploads", ""), 202, "")
	if a := s.do("GET", "/v2/r/blobs/"+sum(""), ""); a.status != 200 || a.body != "" {
		t.Errorf("the empty blob: %+v", a)
	}

	// What doesn't fit its digest is gone, and the upload with it.
	at = start()
	s.want("another digest", s.do("PUT", at+"?digest="+sum("x"), "y"), 400, "DIGEST_INVALID")
	s.want("and its upload", s.do("GET", at, ""), 404, "BLOB_UPLOAD_UNKNOWN")
	s.want("nothing kept", s.do("HEAD", "/v2/r/blobs/"+sum("y"), ""), 404, "")
	for _, digest := range []string{"", "sha256:xyz", "sha512:" + strings.Repeat("0", 128), strings.ToUpper(sum("x")), "md5:00", sum("x") + "%00"} {
		s.want("digest "+digest, s.do("PUT", start()+"?digest="+digest, "x"), 400, "DIGEST_INVALID")
	}

	// Another repository's upload isn't this one's.
	at = start()
	s.want("foreign", s.do("PATCH", strings.Replace(at, "/v2/r/", "/v2/q/", 1), "x"), 404, "BLOB_UPLOAD_UNKNOWN")
	s.want("cancel", s.do("DELETE", at, ""), 204, "")
	s.want("cancelled", s.do("PATCH", at, "x"), 404, "BLOB_UPLOAD_UNKNOWN")
	s.want("unknown", s.do("PUT", "/v2/r/blobs/uploads/nothing?digest="+sum("x"), "x"), 404, "BLOB_UPLOAD_UNKNOWN")

	// Mounted from another repository, or not.
	s.want("mount", s.do("POST", "/v2/q/blobs/uploads/?mount="+sum("whole")+"&from=r", ""), 201, "")
	s.want("mounted", s.do("HEAD", "/v2/q/blobs/"+sum("whole"), ""), 200, "")
	s.want("mount of nothing", s.do("POST", "/v2/q/blobs/uploads/?mount="+sum("nothing")+"&from=r", ""), 202, "")
	s.want("mount from nowhere", s.do("POST", "/v2/q/blobs/uploads/?mount="+sum("whole"), ""), 202, "")
	s.want("hostile mount", s.do("POST", "/v2/q/blobs/uploads/?mount="+sum("whole")+"&from=../r", ""), 202, "")
}

// cutBody gives its bytes and then an error, as a line that breaks.
type cutBody struct{ io.Reader }

func (b cutBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = errors.New("the line broke")
	}
	return n, err
}

// TestUploadResumes breaks the line in the middle of a chunk: what arrived stays.
func TestUploadResumes(t *testing.T) {
	s := newServer(t, options{})
	at := s.do("POST", "/v2/r/blobs/uploads/", "").header.Get("Location")
	rec := httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodPatch, at, cutBody{strings.NewReader("abc")})
	req.SetBasicAuth("operator", "secret")
	s.registry.ServeHTTP(rec, req)
	if rec.Code != 400 || !strings.Contains(rec.Body.String(), "BLOB_UPLOAD_INVALID") {
		t.Fatalf("%d %s", rec.Code, rec.Body)
	}
	if a := s.do("GET", at, ""); a.header.Get("Range") != "0-2" {
		t.Fatalf("%+v", a)
	}
	s.want("the rest", s.do("PUT", at+"?digest="+sum("abcdef"), "def"), 201, "")
}

func TestUploadBounds(t *testing.T) {
	now := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	var mu sync.Mutex
	s := newServer(t, options{maxBlob: 8, now: func() time.Time { mu.Lock(); defer mu.Unlock(); return now }})
	s.want("just fits", s.do("POST", "/v2/r/blobs/uploads/?digest="+sum("12345678"), "12345678"), 201, "")
	s.want("too long", s.do("POST", "/v2/r/blobs/uploads/?digest="+sum("123456789"), "123456789"), 413, "SIZE_INVALID")
	at := s.do("POST", "/v2/r/blobs/uploads/", "").header.Get("Location")
	s.want("first chunk", s.do("PATCH", at, "12345"), 202, "")
	s.want("too long together", s.do("PATCH", at, "6789"), 413, "SIZE_INVALID")
	s.want("and gone", s.do("GET", at, ""), 404, "BLOB_UPLOAD_UNKNOWN")

	for range maxUploads {
		s.want("start", s.do("POST", "/v2/r/blobs/uploads/", ""), 202, "")
	}
	s.want("one too many", s.do("POST", "/v2/r/blobs/uploads/", ""), 429, "TOOMANYREQUESTS")
	mu.Lock()
	now = now.Add(uploadIdle + time.Second)
	mu.Unlock()
	s.want("after the idle ones ended", s.do("POST", "/v2/r/blobs/uploads/", ""), 202, "")
}

func TestManifests(t *testing.T) {
	s := newServer(t, options{})
	doc := imageManifest("layer", "")
	s.want("without its blobs", s.pushManifest("r", "v1", doc), 404, "MANIFEST_BLOB_UNKNOWN")
	s.pushBlob("r", "{}")
	s.want("without its layer", s.pushManifest("r", "v1", doc), 404, "MANIFEST_BLOB_UNKNOWN")
	s.pushBlob("r", "layer")
	a := s.pushManifest("r", "v1", doc)
	if a.status != 201 || a.header.Get("Docker-Content-Digest") != sum(doc) || a.header.Get("Location") != "/v2/r/manifests/"+sum(doc) || a.header.Get("OCI-Subject") != "" {
		t.Fatalf("%+v", a)
	}
	for _, reference := range []string{"v1", sum(doc)} {
		a := s.do("GET", "/v2/r/manifests/"+reference, "")
		if a.status != 200 || a.body != doc || a.header.Get("Content-Type") != ocispec.MediaTypeImageManifest || a.header.Get("Docker-Content-Digest") != sum(doc) {
			t.Errorf("%s: %+v", reference, a)
		}
		if head := s.do("HEAD", "/v2/r/manifests/"+reference, ""); head.status != 200 || head.header.Get("Content-Length") != fmt.Sprint(len(doc)) {
			t.Errorf("HEAD %s: %+v", reference, head)
		}
	}
	s.want("a manifest is no blob", s.do("GET", "/v2/r/blobs/"+sum(doc), ""), 404, "BLOB_UNKNOWN")
	s.want("a blob is no manifest", s.do("GET", "/v2/r/manifests/"+sum("layer"), ""), 404, "MANIFEST_UNKNOWN")
	s.want("unknown tag", s.do("GET", "/v2/r/manifests/v2", ""), 404, "MANIFEST_UNKNOWN")

	// By digest, and not by another's.
	other := imageManifest("layer", `,"annotations":{"n":"2"}`)
	s.want("by digest", s.pushManifest("r", sum(other), other), 201, "")
	s.want("by another's digest", s.pushManifest("r", sum(doc), other), 400, "DIGEST_INVALID")
	s.want("tag moves", s.pushManifest("r", "v1", other), 201, "")
	if a := s.do("GET", "/v2/r/manifests/v1", ""); a.body != other {
		t.Errorf("the tag didn't move: %s", a.body)
	}

	// An index, of manifests that are there.
	index := func(of string) string {
		return `{"schemaVersion":2,"manifests":[{"mediaType":"` + ocispec.MediaTypeImageManifest + `","digest":"` + sum(of) + `","size":` + fmt.Sprint(len(of)) + `,"platform":{"os":"linux","architecture":"amd64"}}]}`
	}
	put := func(doc string) answer {
		return s.do("PUT", "/v2/r/manifests/all", doc, "Content-Type", ocispec.MediaTypeImageIndex)
	}
	s.want("index of nothing", put(index("nothing")), 404, "MANIFEST_BLOB_UNKNOWN")
	s.want("index of a blob", put(index("layer")), 404, "MANIFEST_BLOB_UNKNOWN")
	s.want("index", put(index(doc)), 201, "")
	if a := s.do("GET", "/v2/r/manifests/all", ""); a.header.Get("Content-Type") != ocispec.MediaTypeImageIndex {
		t.Errorf("%+v", a)
	}
}

func TestManifestsRefused(t *testing.T) {
	s := newServer(t, options{})
	s.pushBlob("r", "{}")
	s.pushBlob("r", "layer")
	good := imageManifest("layer", "")
	many := strings.Repeat(descriptor("layer", "x")+",", maxDescriptors+1)
	for name, tc := range map[string]struct {
		contentType, doc string
		status           int
		code             string
	}{
		"no type":           {"", good, 400, "MANIFEST_INVALID"},
		"plain JSON":        {"application/json", good, 400, "MANIFEST_INVALID"},
		"schema 1":          {"application/vnd.docker.distribution.manifest.v1+prettyjws", good, 400, "MANIFEST_INVALID"},
		"another type":      {ocispec.MediaTypeImageIndex, good, 400, "MANIFEST_INVALID"},
		"not JSON":          {ocispec.MediaTypeImageManifest, "{", 400, "MANIFEST_INVALID"},
		"not an object":     {ocispec.MediaTypeImageManifest, "[]", 400, "MANIFEST_INVALID"},
		"empty":             {ocispec.MediaTypeImageManifest, "", 400, "MANIFEST_INVALID"},
		"schema version":    {ocispec.MediaTypeImageManifest, strings.Replace(good, `:2,`, `:1,`, 1), 400, "MANIFEST_INVALID"},
		"both kinds":        {ocispec.MediaTypeImageManifest, imageManifest("layer", `,"manifests":[]`), 400, "MANIFEST_INVALID"},
		"index with layers": {ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[],"layers":[]}`, 400, "MANIFEST_INVALID"},
		"no config":         {ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"layers":[]}`, 400, "MANIFEST_INVALID"},
		"sha512":            {ocispec.MediaTypeImageManifest, strings.Replace(good, sum("layer"), "sha512:00", 1), 400, "MANIFEST_INVALID"},
		"path as digest":    {ocispec.MediaTypeImageManifest, strings.Replace(good, sum("layer"), "../../../etc/passwd", 1), 400, "MANIFEST_INVALID"},
		"negative size":     {ocispec.MediaTypeImageManifest, strings.Replace(good, `"size":5`, `"size":-5`, 1), 400, "MANIFEST_INVALID"},
		"hostile subject":   {ocispec.MediaTypeImageManifest, imageManifest("layer", `,"subject":{"mediaType":"x","digest":"sha256:..","size":1}`), 400, "MANIFEST_INVALID"},
		"too many parts":    {ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"config":` + descriptor("{}", "x") + `,"layers":[` + many + descriptor("{}", "x") + `]}`, 400, "MANIFEST_INVALID"},
		"too long":          {ocispec.MediaTypeImageManifest, good + strings.Repeat(" ", maxManifest), 413, "SIZE_INVALID"},
	} {
		s.want(name, s.do("PUT", "/v2/r/manifests/v1", tc.doc, "Content-Type", tc.contentType), tc.status, tc.code)
	}
	s.want("nothing was kept", s.do("GET", "/v2/r/manifests/v1", ""), 404, "MANIFEST_UNKNOWN")
	s.want("with parameters", s.do("PUT", "/v2/r/manifests/v1", good, "Content-Type", ocispec.MediaTypeImageManifest+"; charset=utf-8"), 201, "")
	s.want("docker's own", s.do("PUT", "/v2/r/manifests/v2", strings.Replace(good, ocispec.MediaTypeImageManifest, "application/vnd.docker.distribution.manifest.v2+json", 1),
		"Content-Type", "application/vnd.docker.distribution.manifest.v2+json"), 201, "")
	s.want("artifact manifest", s.do("PUT", "/v2/r/manifests/v3", `{"mediaType":"application/vnd.oci.artifact.manifest.v1+json","artifactType":"x/y","blobs":[`+descriptor("layer", "x")+`]}`,
		"Content-Type", "application/vnd.oci.artifact.manifest.v1+json"), 201, "")
}

func TestReferrers(t *testing.T) {
	s := newServer(t, options{})
	s.pushBlob("r", "{}")
	s.pushBlob("r", "layer")
	image := imageManifest("layer", "")
	subject := `,"subject":` + descriptor(image, ocispec.MediaTypeImageManifest)
	// The signature arrives before what it signs.
	signature := imageManifest("layer", subject+`,"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json","annotations":{"key":"<value> & \u00e9"}`)
	typeless := imageManifest("layer", subject)
	for _, doc := range []string{signature, typeless} {
		a := s.pushManifest("r", sum(doc), doc)
		if a.status != 201 || a.header.Get("OCI-Subject") != sum(image) {
			t.Fatalf("%+v", a)
		}
	}
	list := func(query string) (map[string]ocispec.Descriptor, answer) {
		t.Helper()
		a := s.do("GET", "/v2/r/referrers/"+sum(image)+query, "")
		var index ocispec.Index
		if err := json.Unmarshal([]byte(a.body), &index); err != nil || a.status != 200 || a.header.Get("Content-Type") != ocispec.MediaTypeImageIndex || index.SchemaVersion != 2 {
			t.Fatalf("%v %+v", err, a)
		}
		got := map[string]ocispec.Descriptor{}
		for _, d := range index.Manifests {
			got[string(d.Digest)] = d
		}
		return got, a
	}
	want := map[string]ocispec.Descriptor{
		sum(signature): {
			MediaType: ocispec.MediaTypeImageManifest, Digest: digestOf(sum(signature)), Size: int64(len(signature)),
			ArtifactType: "application/vnd.dev.sigstore.bundle.v0.3+json", Annotations: map[string]string{"key": "<value> & é"},
		},
		sum(typeless): {
			MediaType: ocispec.MediaTypeImageManifest, Digest: digestOf(sum(typeless)), Size: int64(len(typeless)),
			ArtifactType: "application/vnd.oci.empty.v1+json",
		},
	}
	got, a := list("")
	if diff := cmp.Diff(want, got); diff != "" || a.header.Get("OCI-Filters-Applied") != "" {
		t.Error(diff, a.header)
	}
	got, a = list("?artifactType=application/vnd.dev.sigstore.bundle.v0.3%2Bjson")
	if len(got) != 1 || got[sum(signature)].Size == 0 || a.header.Get("OCI-Filters-Applied") != "artifactType" {
		t.Errorf("%v %v", got, a.header)
	}
	if got, _ = list("?artifactType=none"); len(got) != 0 {
		t.Error(got)
	}
	s.want("not a digest", s.do("GET", "/v2/r/referrers/v1", ""), 400, "DIGEST_INVALID")
	if a := s.do("GET", "/v2/elsewhere/referrers/"+sum(image), ""); a.status != 200 || !strings.Contains(a.body, `"manifests":[]`) {
		t.Errorf("%+v", a)
	}
}

func TestLists(t *testing.T) {
	s := newServer(t, options{})
	var all []string
	for _, repository := range []string{"b", "a/x", "a"} {
		s.pushBlob(repository, "{}")
		s.pushBlob(repository, "layer")
		for i := range 5 {
			tag := fmt.Sprintf("v%d", i)
			s.want(tag, s.pushManifest(repository, tag, imageManifest("layer", "")), 201, "")
			if repository == "b" {
				all = append(all, tag)
			}
		}
	}
	type tagList struct {
		Name string
		Tags []string
	}
	var got []string
	pages := 0
	for next := "/v2/b/tags/list?n=2"; next != ""; pages++ {
		a := s.do("GET", next, "")
		var list tagList
		if err := json.Unmarshal([]byte(a.body), &list); err != nil || list.Name != "b" {
			t.Fatalf("%+v", a)
		}
		got = append(got, list.Tags...)
		next, _, _ = strings.Cut(strings.TrimPrefix(a.header.Get("Link"), "<"), ">")
	}
	if diff := cmp.Diff(all, got); diff != "" || pages != 3 {
		t.Errorf("%d pages\n%s", pages, diff)
	}
	if a := s.do("GET", "/v2/b/tags/list?n=0", ""); !strings.Contains(a.body, `"tags":[]`) {
		t.Errorf("%+v", a)
	}
	s.want("bad n", s.do("GET", "/v2/b/tags/list?n=-1", ""), 400, "UNSUPPORTED")
	s.want("no repository", s.do("GET", "/v2/c/tags/list", ""), 404, "NAME_UNKNOWN")
	if a := s.do("GET", "/v2/_catalog", ""); a.body != `{"repositories":["a","a/x","b"]}` {
		t.Errorf("%+v", a)
	}
}

func TestHostilePaths(t *testing.T) {
	s := newServer(t, options{})
	d := sum("x")
	for path, code := range map[string]string{
		"/v2/../../etc/passwd/blobs/" + d:                 "NAME_INVALID",
		"/v2/A/blobs/" + d:                                "NAME_INVALID",
		"/v2/a//b/blobs/" + d:                             "NAME_INVALID",
		"/v2/a/%2e%2e/b/blobs/" + d:                       "NAME_INVALID",
		"/v2/a%00/blobs/" + d:                             "NAME_INVALID",
		"/v2//blobs/" + d:                                 "NAME_INVALID",
		"/v2/-a/blobs/" + d:                               "NAME_INVALID",
		"/v2/a_-b/blobs/" + d:                             "NAME_INVALID",
		"/v2/" + strings.Repeat("a", 256) + "/blobs/" + d: "NAME_INVALID",
		"/v2/a/blobs/..%2f..%2fx":                         "NAME_UNKNOWN",
		"/v2/a/blobs/sha256:..":                           "DIGEST_INVALID",
		"/v2/a/blobs/" + d + "0":                          "DIGEST_INVALID",
		"/v2/a/blobs/latest":                              "DIGEST_INVALID",
		"/v2/a/manifests/.hidden":                         "MANIFEST_INVALID",
		"/v2/a/manifests/" + strings.Repeat("a", 129):     "MANIFEST_INVALID",
		"/v2/a/manifests/sha256:0":                        "DIGEST_INVALID",
		"/v2/a/manifests/x%0ay":                           "MANIFEST_INVALID",
		"/v2/a":                                           "NAME_UNKNOWN",
		"/v2/a/":                                          "NAME_UNKNOWN",
		"/v2/manifests/x":                                 "NAME_UNKNOWN",
		"/v2/tags/list":                                   "NAME_UNKNOWN",
		"/v2/_catalog/":                                   "NAME_UNKNOWN",
	} {
		a := s.do("GET", path, "")
		if a.status < 400 || a.status >= 500 || a.code() != code {
			t.Errorf("%s: %d %q, want %q: %.200s", path, a.status, a.code(), code, a.body)
		}
	}
	// Names that hold the words of the paths are names.
	for _, name := range []string{"blobs", "manifests/x", "a/blobs/uploads", "tags/list", "v2/referrers"} {
		s.pushBlob(name, "x")
		s.want(name, s.do("GET", "/v2/"+name+"/blobs/"+d, ""), 200, "")
	}
}

func FuzzParsePath(f *testing.F) {
	for _, path := range []string{"", "_catalog", "a/b/blobs/uploads/", "a/manifests/latest", "a/referrers/sha256:00", "a/../b/tags/list"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		got, err := parsePath(path)
		if err != nil || got.kind == ping || got.kind == catalog {
			return
		}
		if !ValidRepository(got.repository) || strings.Contains(got.repository, "..") {
			t.Errorf("%q gives the repository %q", path, got.repository)
		}
		if (got.kind == blob || got.kind == referrers) && !ValidDigest(got.reference) {
			t.Errorf("%q gives the digest %q", path, got.reference)
		}
	})
}

func FuzzParseManifest(f *testing.F) {
	f.Add(ocispec.MediaTypeImageManifest, []byte(imageManifest("layer", "")))
	f.Add(ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"manifests":[]}`))
	f.Fuzz(func(t *testing.T, contentType string, data []byte) {
		doc, err := parseManifest(contentType, data)
		if err != nil {
			return
		}
		for _, d := range slices.Concat(doc.Layers, doc.Blobs, doc.Manifests) {
			if !ValidDigest(string(d.Digest)) {
				t.Errorf("accepted digest %q", d.Digest)
			}
		}
	})
}

// TestAuthorization goes through every kind of request for nobody, a node and the operator.
func TestAuthorization(t *testing.T) {
	s := newServer(t, options{})
	for _, repository := range []string{"assigned/m", "secret/m"} {
		s.pushBlob(repository, "{}")
		s.pushBlob(repository, "layer")
		s.want("push", s.pushManifest(repository, "v1", imageManifest("layer", "")), 201, "")
	}
	type status struct{ nobody, assigned, other, operator int }
	for request, want := range map[string]status{
		"GET /blobs/" + sum("layer"):     {401, 200, 404, 200},
		"HEAD /blobs/" + sum("layer"):    {401, 200, 404, 200},
		"GET /manifests/v1":              {401, 200, 404, 200},
		"GET /tags/list":                 {401, 200, 404, 200},
		"GET /referrers/" + sum("layer"): {401, 200, 404, 200},
		"PUT /manifests/v1":              {401, 403, 403, 400},
		"POST /blobs/uploads/":           {401, 403, 403, 202},
		"GET /blobs/uploads/x":           {401, 403, 403, 404},
		"PATCH /blobs/uploads/x":         {401, 403, 403, 404},
		"PUT /blobs/uploads/x":           {401, 403, 403, 404},
		"DELETE /blobs/uploads/x":        {401, 403, 403, 404},
		"DELETE /manifests/v9":           {401, 403, 403, 404},
		"DELETE /blobs/" + sum("none"):   {401, 403, 403, 404},
		"POST /blobs/uploads/?mount=" + sum("layer") + "&from=secret/m": {401, 403, 403, 201},
	} {
		method, path, _ := strings.Cut(request, " ")
		got := status{
			s.as("", method, "/v2/assigned/m"+path, nil).status,
			s.as("node", method, "/v2/assigned/m"+path, nil).status,
			s.as("node", method, "/v2/secret/m"+path, nil).status,
			s.as("operator", method, "/v2/assigned/m"+path, nil).status,
		}
		if got != want {
			t.Errorf("%s: %+v, want %+v", request, got, want)
		}
	}
	s.want("catalog for a node", s.as("node", "GET", "/v2/_catalog", nil), 403, "DENIED")
	s.want("catalog for nobody", s.as("", "GET", "/v2/_catalog", nil), 401, "UNAUTHORIZED")
}

// TestDiskFull fails each labelled operation of a push as a full disk would: the caller is told,
// nothing half done is served, and the same push succeeds afterwards.
func TestDiskFull(t *testing.T) {
	var mu sync.Mutex
	var ops []string
	failAt := -1
	s := newServer(t, options{hook: func(op string) error {
		mu.Lock()
		defer mu.Unlock()
		ops = append(ops, op)
		if failAt == 0 {
			return syscall.ENOSPC
		}
		failAt--
		return nil
	}})
	arm := func(n int) { mu.Lock(); defer mu.Unlock(); failAt, ops = n, nil }
	doc := imageManifest("layer", "")
	s.pushBlob("r", "{}")
	s.pushBlob("r", "layer")
	failed := map[string]int{}
	for n := 0; ; n++ {
		content := fmt.Sprintf("blob %d", n)
		arm(n)
		a := s.do("POST", "/v2/r/blobs/uploads/?digest="+sum(content), content)
		manifest := s.pushManifest("r", "v1", strings.Replace(doc, `"layers"`, fmt.Sprintf(`"annotations":{"n":"%d"},"layers"`, n), 1))
		arm(-1)
		if a.status == 201 && manifest.status == 201 {
			break
		}
		for _, a := range []answer{a, manifest} {
			if a.status != 201 {
				failed[fmt.Sprint(a.status, " ", a.code())]++
				if !strings.Contains(a.body, "no space left") {
					t.Errorf("operation %d: %s", n, a.body)
				}
			}
		}
		if a.status != 201 {
			s.want("before", s.do("HEAD", "/v2/r/blobs/"+sum(content), ""), 404, "")
		}
		s.pushBlob("r", content)
	}
	if got := slices.Sorted(maps.Keys(failed)); !slices.Equal(got, []string{"507 UNKNOWN"}) || failed["507 UNKNOWN"] < 8 {
		t.Errorf("failures %v", failed)
	}
}

// TestRestart checks that what was pushed is there after a restart, and that what wasn't finished goes on.
func TestRestart(t *testing.T) {
	path := t.TempDir()
	doc := imageManifest("layer", "")
	s := newServer(t, options{path: path})
	s.pushBlob("r", "{}")
	s.pushBlob("r", "layer")
	s.want("push", s.pushManifest("r", "v1", doc), 201, "")
	at := s.do("POST", "/v2/r/blobs/uploads/", "").header.Get("Location")
	s.want("patch", s.do("PATCH", at, "half"), 202, "")
	again := newServer(t, options{path: path}) // the first one is still there, as after a kill
	if a := again.do("GET", "/v2/r/manifests/v1", ""); a.body != doc {
		t.Errorf("%+v", a)
	}
	again.want("layer", again.do("GET", "/v2/r/blobs/"+sum("layer"), ""), 200, "")
	again.want("upload", again.do("PUT", at+"?digest="+sum("half more"), " more"), 201, "")
}

// TestConcurrentPushes pushes one blob and one manifest from many callers at once.
func TestConcurrentPushes(t *testing.T) {
	s := newServer(t, options{})
	s.pushBlob("r", "{}")
	layer := strings.Repeat("layer", 100_000)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s.want("blob", s.do("POST", "/v2/r/blobs/uploads/?digest="+sum(layer), layer), 201, "")
			s.want("manifest", s.pushManifest("r", "v1", imageManifest(layer, "")), 201, "")
		})
	}
	wg.Wait()
	if a := s.do("GET", "/v2/r/blobs/"+sum(layer), ""); a.body != layer {
		t.Error("the blob came back changed")
	}
}
