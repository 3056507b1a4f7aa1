package publish

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/powernode/powernode-agent/internal/layer"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/signing"
	"github.com/powernode/powernode-agent/internal/tree"
)

// layoutOf makes a layout as another builder leaves it: one image under "latest", without a seal.
func layoutOf(t *testing.T, arch string) *ociimage.Layout {
	t.Helper()
	l, err := ociimage.CreateLayout(filepath.Join(t.TempDir(), arch))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	text := "schema_version: 1\nname: m\n"
	root := tree.NewDir(0o755)
	dir := root
	path := strings.Split(module.ManifestPath("m"), "/")
	for _, name := range path[:len(path)-1] {
		next := tree.NewDir(0o755)
		dir.SetChild(name, next)
		dir = next
	}
	dir.SetChild(path[len(path)-1], &tree.Node{Kind: tree.Regular, Mode: 0o644, Size: uint64(len(text)), Inline: []byte(text)})
	d, err := l.AddLayer(t.Context(), root, layer.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.AddImage(ociimage.ImageSpec{
		Architecture: arch, Layers: []layer.Descriptor{d}, Tag: "latest",
		Labels:      map[string]string{module.LabelManifest: text},
		Annotations: map[string]string{module.AnnotationName: "m", module.AnnotationVersion: "1.0"},
	}); err != nil {
		t.Fatal(err)
	}
	return l
}

// watched is a registry that notes which manifests are put and which blobs are sent, and refuses
// manifests from a certain one on.
type watched struct {
	mu        sync.Mutex
	inner     http.Handler
	manifests []string
	blobs     int
	// room is how many manifests it still takes.
	room int
}

func (w *watched) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch _, name, ok := strings.Cut(r.URL.Path, "/manifests/"); {
	case ok && r.Method == http.MethodPut && w.room == 0:
		rw.WriteHeader(http.StatusInsufficientStorage)
		return
	case ok && r.Method == http.MethodPut:
		w.room--
		w.manifests = append(w.manifests, name)
	case r.Method == http.MethodPut:
		w.blobs++
	}
	w.inner.ServeHTTP(rw, r)
}

func serve(t *testing.T, room int) (*watched, Options) {
	t.Helper()
	w := &watched{inner: registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0))), room: room}
	server := httptest.NewServer(w)
	t.Cleanup(server.Close)
	client := ociimage.NewClient(ociimage.Options{PlainHTTP: true, Retry: ociimage.Retrying{Attempts: 1, Min: time.Millisecond, Max: time.Millisecond}})
	t.Cleanup(client.Close)
	key, err := signing.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return w, Options{Client: client, Repository: strings.TrimPrefix(server.URL, "http://") + "/modules/m", Key: key}
}

// TestTheTagComesLast publishes into registries that give up after some manifests: until all are
// there, the signatures among them, no tag names the version.
func TestTheTagComesLast(t *testing.T) {
	for name, test := range map[string]struct {
		architectures []string
		manifests     int
	}{
		"one image": {[]string{"amd64"}, 4 + 1},            // the image, two signatures, the list of what refers to it; the tag
		"an index":  {[]string{"amd64", "arm64"}, 3*4 + 1}, // two images and the index
	} {
		t.Run(name, func(t *testing.T) {
			layouts := make([]*ociimage.Layout, len(test.architectures))
			for i, arch := range test.architectures {
				layouts[i] = layoutOf(t, arch)
			}
			for room := range test.manifests + 1 {
				w, o := serve(t, room)
				o.Layouts = layouts
				p, err := Publish(t.Context(), o)
				image, tagged := o.Client.Resolve(t.Context(), ociimage.Reference{Repository: o.Repository, Tag: "1.0"}, "amd64")
				if room < test.manifests {
					if err == nil || tagged == nil {
						t.Errorf("after %d manifests: published: %v; the tag names %+v", room, err, image)
					}
					continue
				}
				if err != nil || tagged != nil {
					t.Fatalf("published: %v; the tag: %v", err, tagged)
				}
				if got := w.manifests[len(w.manifests)-1]; got != "1.0" || len(w.manifests) != test.manifests {
					t.Errorf("%d manifests, the last %s", len(w.manifests), got)
				}
				found, err := o.Client.Attached(t.Context(), image)
				if want := 2 * min(len(layouts), 2); err != nil || len(found.Found) != want {
					t.Errorf("%d signatures are found, not %d: %v", len(found.Found), want, err)
				}
				if named := image.Digest; len(layouts) > 1 && p.Digest != string(image.Index.Digest) || len(layouts) == 1 && p.Digest != string(named) {
					t.Errorf("published %s, the tag names %s", p.Digest, named)
				}
			}
		})
	}
}

// TestAgain publishes another builder's layout twice, and once more after a build of the same.
func TestAgain(t *testing.T) {
	w, o := serve(t, 100)
	l := layoutOf(t, "amd64")
	o.Layouts = []*ociimage.Layout{l}
	first, err := Publish(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	built, err := l.Resolve(t.Context(), ociimage.Reference{Tag: "latest"}, "")
	if err != nil {
		t.Fatal(err)
	}
	blobs := w.blobs
	for range 2 {
		again, err := Publish(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if again.Digest != first.Digest || again.Images[0] != first.Images[0] {
			t.Errorf("published again it is %+v, not %+v", again, first)
		}
		if name, err := NameOf(t.Context(), l); err != nil || name != "m" {
			t.Errorf("the layout holds module %q, %v", name, err)
		}
		// The builder lists its image last.
		if _, err := l.Annotate(built, nil, "latest"); err != nil {
			t.Fatal(err)
		}
	}
	// A signature is another one each time: a bundle, a payload's manifest with its config.
	if sent := w.blobs - blobs; sent > 2*3 {
		t.Errorf("%d blobs were sent again", sent)
	}
}
