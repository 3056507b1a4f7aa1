package registry

import (
	"crypto/sha512"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/platform/db"
)

// TestDelete deletes a tag, a manifest and a blob: they are gone from their repository, and from no other; the same push
// brings them back.
func TestDelete(t *testing.T) {
	s := newServer(t, options{})
	doc := imageManifest("layer", "")
	for _, repository := range []string{"r", "other"} {
		s.pushBlob(repository, "{}")
		s.pushBlob(repository, "layer")
		for _, tag := range []string{"v1", "v2"} {
			s.want("push", s.pushManifest(repository, tag, doc), 201, "")
		}
	}
	s.want("a tag", s.do("DELETE", "/v2/r/manifests/v1", ""), 202, "")
	s.want("its manifest", s.do("GET", "/v2/r/manifests/"+sum(doc), ""), 200, "")
	s.want("the tag again", s.do("DELETE", "/v2/r/manifests/v1", ""), 404, "MANIFEST_UNKNOWN")
	s.want("a manifest", s.do("DELETE", "/v2/r/manifests/"+sum(doc), ""), 202, "")
	s.want("its other tag", s.do("GET", "/v2/r/manifests/v2", ""), 404, "MANIFEST_UNKNOWN")
	s.want("a blob", s.do("DELETE", "/v2/r/blobs/"+sum("layer"), ""), 202, "")
	s.want("the blob again", s.do("DELETE", "/v2/r/blobs/"+sum("layer"), ""), 404, "BLOB_UNKNOWN")
	s.want("a manifest without its blob", s.pushManifest("r", "v1", doc), 404, "MANIFEST_BLOB_UNKNOWN")
	s.want("the other repository", s.do("GET", "/v2/other/manifests/v2", ""), 200, "")
	s.want("the other repository's blob", s.do("GET", "/v2/other/blobs/"+sum("layer"), ""), 200, "")
	s.pushBlob("r", "layer")
	s.want("push again", s.pushManifest("r", "v1", doc), 201, "")
}

// TestSHA512 stores content by the other algorithm that the image specification registers.
func TestSHA512(t *testing.T) {
	s := newServer(t, options{})
	long := func(text string) string {
		b := sha512.Sum512([]byte(text))
		return "sha512:" + hex.EncodeToString(b[:])
	}
	layer := strings.Repeat("layer", 1000)
	s.want("another's digest", s.do("POST", "/v2/r/blobs/uploads/?digest="+long("x"), layer), 400, "DIGEST_INVALID")
	s.want("blob", s.do("POST", "/v2/r/blobs/uploads/?digest="+long(layer), layer), 201, "")
	s.pushBlob("r", "{}")
	doc := strings.ReplaceAll(imageManifest(layer, ""), sum(layer), long(layer))
	s.want("manifest", s.pushManifest("r", long(doc), doc), 201, "")
	if a := s.do("GET", "/v2/r/blobs/"+long(layer), "", "Range", "bytes=4995-"); a.status != 206 || a.body != "layer" {
		t.Errorf("%+v", a)
	}
	if a := s.do("GET", "/v2/r/manifests/"+long(doc), ""); a.body != doc || a.header.Get("Docker-Content-Digest") != long(doc) {
		t.Errorf("%+v", a)
	}
	s.want("one content, another name", s.do("GET", "/v2/r/blobs/"+sum(layer), ""), 404, "BLOB_UNKNOWN")
	s.want("no algorithm of ours", s.do("GET", "/v2/r/blobs/sha384:00", ""), 400, "DIGEST_INVALID")
}

// TestRegisterGone registers a module of which something was deleted since it was looked at.
func TestRegisterGone(t *testing.T) {
	s := newServer(t, options{})
	index, ok := s.registry.index.(*db.DB)
	if !ok {
		t.Fatal("the index is no database")
	}
	doc := imageManifest("layer", "")
	m := db.Module{Name: "m", Variety: "config", Version: "1", Repository: "r", Digest: sum(doc), Images: []db.Image{{Architecture: "all", ManifestDigest: sum(doc)}}}
	s.pushBlob("r", "{}")
	s.pushBlob("r", "layer")
	s.want("push", s.pushManifest("r", "v1", doc), 201, "")
	for _, what := range []string{"/blobs/" + sum("layer"), "/manifests/" + sum(doc)} {
		s.want("delete", s.do("DELETE", "/v2/r"+what, ""), 202, "")
		if _, err := s.registry.Register(t.Context(), index, m); fault.KindOf(err) != fault.Refuse || !strings.Contains(fault.HintOf(err), "push it again") {
			t.Errorf("%s: %v", what, err)
		}
	}
	s.pushBlob("r", "layer")
	s.want("push", s.pushManifest("r", "v1", doc), 201, "")
	if _, err := s.registry.Register(t.Context(), index, m); err != nil {
		t.Fatal(err)
	}
	s.want("what is registered", s.do("DELETE", "/v2/r/blobs/"+sum("layer"), ""), 409, "DENIED")
}
