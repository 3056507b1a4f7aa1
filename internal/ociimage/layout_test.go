package ociimage

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/layer"
)

// tarDir packs a directory as `tar -C dir -cf file .` would.
func tarDir(t testing.TB, dir string) string {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "layout.tar")
	if err := os.WriteFile(name, buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestLayoutsAsSources(t *testing.T) {
	l, image, _ := sealedLayout(t, "amd64", 100_000)
	for _, path := range []string{l.path, tarDir(t, l.path)} {
		from, err := OpenLayout(path)
		if err != nil {
			t.Fatal(err)
		}
		defer from.Close()
		m := newMemory()
		for _, ref := range []Reference{{}, {Tag: "v1-amd64"}, {Digest: image.Digest}} {
			checkPulled(t, from, ref, PullOptions{Sink: m, Partials: m})
		}
		if len(m.partials) != 0 {
			t.Error("partials were kept of a local layout")
		}
		for name, ref := range map[string]Reference{"another tag": {Tag: "v2"}, "another digest": {Digest: digest.FromString("x")}, "no digest": {Digest: "sha256:../../x"}} {
			if _, err := from.Resolve(context.Background(), ref, ""); fault.KindOf(err) != fault.Refuse {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// sum is a digest of a directory's names and contents.
func sum(t *testing.T, dir string) string {
	t.Helper()
	h := sha256.New()
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var b []byte
			if b, err = os.ReadFile(filepath.Join(dir, path)); err == nil {
				h.Write([]byte(path))
				h.Write(b)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func TestLayoutsAreReproducible(t *testing.T) {
	a, imageA, _ := sealedLayout(t, "arm64", 10_000)
	b, imageB, _ := sealedLayout(t, "arm64", 10_000)
	if imageA.Digest != imageB.Digest || sum(t, a.path) != sum(t, b.path) {
		t.Error("the same modules give different layouts")
	}
}

func TestLayoutOfSeveralImages(t *testing.T) {
	l, first, _ := sealedLayout(t, "amd64", 1000)
	second, err := l.AddImage(ImageSpec{Architecture: "amd64", Layers: first.Layers, Tag: "v2"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Resolve(context.Background(), Reference{}, "amd64"); err == nil || !strings.Contains(err.Error(), "several images") {
		t.Errorf("no tag: %v", err)
	}
	for tag, want := range map[string]*Image{"v1-amd64": first, "v2": second} {
		if got, err := l.Resolve(context.Background(), Reference{Tag: tag}, "amd64"); err != nil || got.Digest != want.Digest {
			t.Errorf("%s: %+v, %v", tag, got, err)
		}
	}
	third, err := l.AddImage(ImageSpec{Architecture: "amd64", Layers: first.Layers[:1], Tag: "v2"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := l.Resolve(context.Background(), Reference{Tag: "v2"}, "amd64"); err != nil || got.Digest != third.Digest || len(l.index.Manifests) != 2 {
		t.Errorf("a tag used again: %+v, %v", got, err)
	}
}

func TestDamagedLayouts(t *testing.T) {
	ctx := context.Background()
	for name, test := range map[string]struct {
		damage func(t *testing.T, dir string, image *Image)
		want   string
	}{
		"no marker":      {func(t *testing.T, dir string, _ *Image) { remove(t, dir, "oci-layout") }, "oci-layout"},
		"another marker": {func(t *testing.T, dir string, _ *Image) { write(t, dir, "oci-layout", `{"imageLayoutVersion":"9"}`) }, "not that of a version"},
		"no index":       {func(t *testing.T, dir string, _ *Image) { remove(t, dir, "index.json") }, "index.json"},
		"broken index":   {func(t *testing.T, dir string, _ *Image) { write(t, dir, "index.json", "{") }, "index.json"},
		"endless index": {func(t *testing.T, dir string, _ *Image) {
			write(t, dir, "index.json", strings.Repeat(" ", documentMax+1))
		}, "larger than"},
		"empty index": {func(t *testing.T, dir string, _ *Image) { write(t, dir, "index.json", `{"manifests":[]}`) }, "holds no image"},
		"no manifest": {func(t *testing.T, dir string, image *Image) { remove(t, dir, blobPath(image.Digest)) }, "lacks the blob"},
		"no config":   {func(t *testing.T, dir string, image *Image) { remove(t, dir, blobPath(digestOf(image.Config))) }, "lacks the blob"},
		"no layer":    {func(t *testing.T, dir string, image *Image) { remove(t, dir, blobPath(image.Layers[1].Digest)) }, "lacks the blob"},
		"manifest":    {func(t *testing.T, dir string, image *Image) { write(t, dir, blobPath(image.Digest), "{}") }, "is damaged: its bytes are"},
		"config": {func(t *testing.T, dir string, image *Image) {
			write(t, dir, blobPath(digestOf(image.Config)), strings.Repeat("x", len(image.Config)))
		}, "and are sha256:"},
		"short config": {func(t *testing.T, dir string, image *Image) { write(t, dir, blobPath(digestOf(image.Config)), "x") }, "it has 1 bytes, not"},
		"truncated layer": {func(t *testing.T, dir string, image *Image) {
			if err := os.Truncate(filepath.Join(dir, blobPath(image.Layers[1].Digest)), 100); err != nil {
				t.Fatal(err)
			}
		}, "the blob is truncated: 100 of"},
		"layer is a FIFO": {func(t *testing.T, dir string, image *Image) {
			remove(t, dir, blobPath(image.Layers[1].Digest))
			if err := syscall.Mkfifo(filepath.Join(dir, blobPath(image.Layers[1].Digest)), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "not a regular file"},
		"layer leads out": {func(t *testing.T, dir string, image *Image) {
			from := filepath.Join(dir, blobPath(image.Layers[1].Digest))
			outside := filepath.Join(t.TempDir(), "x")
			if err := os.Rename(from, outside); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(outside, from); err != nil {
				t.Fatal(err)
			}
		}, "path escapes"},
	} {
		made, image, _ := sealedLayout(t, "amd64", 1000)
		test.damage(t, made.path, image)
		err := func() error {
			l, err := OpenLayout(made.path)
			if err != nil {
				return err
			}
			defer l.Close()
			got, err := l.Resolve(ctx, Reference{}, "amd64")
			if err != nil {
				return err
			}
			_, _, err = Pull(ctx, l, got, PullOptions{Sink: layer.Discard{}, Parallel: 1})
			return err
		}()
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		} else if fault.KindOf(err) != fault.Refuse && name != "layer is a FIFO" && name != "layer leads out" {
			t.Errorf("%s: kind %v: %v", name, fault.KindOf(err), err)
		}
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestNotALayout(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "text", "hello")
	write(t, dir, "empty", "")
	l, _, _ := sealedLayout(t, "amd64", 1000)
	whole, err := os.ReadFile(tarDir(t, l.path))
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "half", string(whole[:len(whole)/2]))
	for _, path := range []string{dir, dir + "/text", dir + "/empty", dir + "/half", dir + "/nothing", "/dev/null"} {
		l, err := OpenLayout(path)
		if err == nil {
			l.Close()
		}
		if fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Input || fault.HintOf(err) == "" || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := CreateLayout(dir); fault.KindOf(err) != fault.Refuse {
		t.Errorf("a full directory: %v", err)
	}
	packed, err := OpenLayout(tarDir(t, l.path))
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	if err := packed.Attach(context.Background(), &Image{Digest: digest.FromString("x")}, bundle("x")); fault.KindOf(err) != fault.Refuse {
		t.Errorf("writing to a tar: %v", err)
	}
}

// TestInterruptedBuild leaves no half blob behind.
func TestInterruptedBuild(t *testing.T) {
	l, err := CreateLayout(t.TempDir() + "/layout")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m := newMemory()
	root := treeOf(t, m, tarEntry{"usr/x", noise(1, 1000)})
	clear(m.objects)
	if _, err := l.AddLayer(context.Background(), root, layer.WriteOptions{Open: m.open}); err == nil {
		t.Fatal("a layer without content was written")
	}
	left, err := filepath.Glob(l.path + "/*/*/*")
	hidden, err2 := filepath.Glob(l.path + "/.tmp*")
	if err != nil || err2 != nil || len(left)+len(hidden) != 0 {
		t.Errorf("left behind: %q, %q", left, hidden)
	}
	if again, err := OpenLayout(l.path); err != nil {
		t.Errorf("the layout is no longer one: %v", err)
	} else {
		again.Close()
	}
}

func FuzzLayoutTar(f *testing.F) {
	l, _, _ := sealedLayout(f, "amd64", 300)
	whole, err := os.ReadFile(tarDir(f, l.path))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Fuzz(func(t *testing.T, b []byte) {
		name := filepath.Join(t.TempDir(), "l.tar")
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := OpenLayout(name)
		if err != nil {
			return
		}
		defer l.Close()
		image, err := l.Resolve(context.Background(), Reference{}, "")
		if err != nil {
			return
		}
		_, _ = l.Attached(context.Background(), image)
		_, _, _ = Pull(context.Background(), l, image, PullOptions{Sink: layer.Discard{}, Limits: layer.Limits{Entries: 100, Metadata: 1 << 16, Bytes: 1 << 20}})
	})
}
