package ociimage

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/layer"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/tree"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quick repeats requests without making a test wait.
var quick = Retrying{Attempts: 4, Min: time.Millisecond, Max: 2 * time.Millisecond}

// serve runs a handler on a loopback address and returns host:port.
func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func newRegistry(t testing.TB, referrers bool) http.Handler {
	t.Helper()
	return registry.New(registry.WithReferrersSupport(referrers), registry.Logger(log.New(io.Discard, "", 0)))
}

func newClient(t testing.TB, o Options) *Client {
	t.Helper()
	o.PlainHTTP = true
	if o.Retry == (Retrying{}) {
		o.Retry = quick
	}
	c := NewClient(o)
	t.Cleanup(c.Close)
	return c
}

// memory keeps objects and partial downloads.
type memory struct {
	mu       sync.Mutex
	objects  map[fsverity.Digest][]byte
	partials map[string][]byte
	// fail makes every write to a partial fail.
	fail error
}

func newMemory() *memory {
	return &memory{objects: make(map[fsverity.Digest][]byte), partials: make(map[string][]byte)}
}

type memoryObject struct {
	bytes.Buffer
	m *memory
}

func (m *memory) NewObject(int64) (layer.ObjectWriter, error) { return &memoryObject{m: m}, nil }

func (o *memoryObject) Commit() (fsverity.Digest, bool, error) {
	d := fsverity.SumBytes(o.Bytes())
	o.m.mu.Lock()
	defer o.m.mu.Unlock()
	_, old := o.m.objects[d]
	o.m.objects[d] = o.Bytes()
	return d, !old, nil
}

func (*memoryObject) Abort() {}

func (m *memory) open(_ string, n *tree.Node) (io.ReadCloser, error) {
	content, ok := m.objects[n.Digest]
	if !ok {
		return nil, os.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(content)), nil
}

type memoryPartial struct {
	m      *memory
	digest string
	ended  bool
}

func (m *memory) Partial(digest string) (Partial, error) {
	return &memoryPartial{m: m, digest: digest}, nil
}

func (p *memoryPartial) bytes() []byte {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	return p.m.partials[p.digest]
}

func (p *memoryPartial) ReadAt(b []byte, off int64) (int, error) {
	return bytes.NewReader(p.bytes()).ReadAt(b, off)
}

func (p *memoryPartial) Write(b []byte) (int, error) {
	if p.m.fail != nil {
		return 0, p.m.fail
	}
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	p.m.partials[p.digest] = append(p.m.partials[p.digest], b...)
	return len(b), nil
}

func (p *memoryPartial) Size() int64 { return int64(len(p.bytes())) }

func (p *memoryPartial) Reset() error {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	p.m.partials[p.digest] = nil
	return nil
}

func (p *memoryPartial) Drop() error {
	p.m.mu.Lock()
	delete(p.m.partials, p.digest)
	p.m.mu.Unlock()
	return p.Close()
}

func (p *memoryPartial) Close() error {
	if p.ended {
		return errors.New("ended twice")
	}
	p.ended = true
	return nil
}

// tarEntry is a file, or a directory where the name ends in a slash.
type tarEntry struct{ name, body string }

// treeOf reads entries as if they came in a layer, and keeps the contents.
func treeOf(t testing.TB, m *memory, entries ...tarEntry) *tree.Node {
	t.Helper()
	l, err := layer.NewReader(m, layer.DefaultLimits()).ReadTar(context.Background(), bytes.NewReader(tarOf(t, entries...)))
	if err != nil {
		t.Fatal(err)
	}
	root, err := layer.Merge(l)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func tarOf(t testing.TB, entries ...tarEntry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		hdr := &tar.Header{Typeflag: tar.TypeReg, Name: e.name, Mode: 0o644, Size: int64(len(e.body)), ModTime: time.Unix(1_700_000_000, 0)}
		if strings.HasSuffix(e.name, "/") {
			hdr.Typeflag, hdr.Mode = tar.TypeDir, 0o755
		}
		if err := w.WriteHeader(hdr); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// noise does not compress, so that layers have the size that a test wants.
func noise(seed uint64, n int) string {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = rng.Read(b)
	return string(b)
}

// sealedLayout makes a layout with one sealed image of several layers, each of about size bytes.
func sealedLayout(t testing.TB, arch string, size int) (*Layout, *Image, fsverity.Digest) {
	t.Helper()
	m := newMemory()
	dir := filepath.Join(t.TempDir(), "layout")
	l, err := CreateLayout(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	var layers []layer.Descriptor
	whole := tree.NewDir(0o755)
	for i := range 3 {
		root := treeOf(t, m, tarEntry{"usr/", ""}, tarEntry{"usr/lib/", ""},
			tarEntry{fmt.Sprintf("usr/lib/big%d", i), noise(uint64(i), size)}, tarEntry{fmt.Sprintf("usr/lib/small%d", i), "small"})
		d, err := l.AddLayer(context.Background(), root, layer.WriteOptions{Open: m.open})
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, d)
		if i == 0 {
			whole = root
			continue
		}
		for name, child := range root.Lookup("usr/lib").Entries() {
			whole.Lookup("usr/lib").SetChild(name, child)
		}
	}
	seal, err := Seal(whole)
	if err != nil {
		t.Fatal(err)
	}
	image, err := l.AddImage(ImageSpec{
		Architecture: arch, Layers: layers, Tag: "v1-" + arch,
		Labels:      map[string]string{module.LabelManifest: "schema_version: 1\n"},
		Annotations: map[string]string{module.AnnotationSeal: seal.String(), module.AnnotationName: "test"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return l, image, seal
}

// push puts a sealed image into a registry and returns where it is.
func push(t testing.TB, c *Client, host string, size int) (Reference, *Image, fsverity.Digest) {
	t.Helper()
	l, image, seal := sealedLayout(t, "amd64", size)
	ref := Reference{Repository: host + "/modules/test", Tag: "v1"}
	if err := c.Push(context.Background(), l, image, ref, nil); err != nil {
		t.Fatal(err)
	}
	ref.Digest = image.Digest
	return ref, image, seal
}

func digestOf(b []byte) digest.Digest { return digest.FromBytes(b) }

func digestFrom(s string) digest.Digest { return digest.Digest(s) }
