package retain

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/powernode/powernode-agent/internal/assemble"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/layer"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/signature"
	"github.com/powernode/powernode-agent/internal/signing"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/tree"
)

// registry has modules on offer, in an OCI layout, signed.
type registry struct {
	layout   *ociimage.Layout
	key      *signing.Key
	verifier *signature.Verifier
}

func newRegistry(t *testing.T) *registry {
	t.Helper()
	key, err := signing.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	policy, err := signature.LoadPolicy([]byte("schema_version: 1\nrules:\n  - name: r\n    images: [\"example.org/**\"]\n    keys: [{file: k.pub}]\n"),
		fstest.MapFS{"k.pub": {Data: key.PublicPEM()}})
	if err != nil {
		t.Fatal(err)
	}
	r := &registry{key: key}
	if r.verifier, err = signature.NewVerifier(policy, signature.Options{}); err != nil {
		t.Fatal(err)
	}
	if r.layout, err = ociimage.CreateLayout(filepath.Join(t.TempDir(), "layout")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.layout.Close() })
	return r
}

// offer puts a version of a module there: some files of its own, and some that every version has.
func (r *registry) offer(t *testing.T, name, version string) nodeapi.Module {
	t.Helper()
	text := "schema_version: 1\nname: " + name + "\n"
	texts := map[string]string{"manifest.yaml": text}
	for i := range 20 {
		texts[fmt.Sprint("own", i)] = strings.Repeat(fmt.Sprint(name, version, i, " "), 300)
		texts[fmt.Sprint("shared", i)] = strings.Repeat(fmt.Sprint("shared ", i, " "), 300)
	}
	files, byDigest := tree.NewDir(0o755), make(map[fsverity.Digest]string)
	for file, text := range texts {
		n := &tree.Node{Kind: tree.Regular, Mode: 0o644, Size: uint64(len(text))}
		if len(text) <= tree.InlineMax {
			n.Inline = []byte(text)
		} else {
			n.Digest = fsverity.SumBytes([]byte(text))
			byDigest[n.Digest] = text
		}
		files.SetChild(file, n)
	}
	root := files
	path := strings.Split(strings.TrimSuffix(module.ManifestPath(name), "/manifest.yaml"), "/")
	for i := len(path) - 1; i >= 0; i-- {
		dir := tree.NewDir(0o755)
		dir.SetChild(path[i], root)
		root = dir
	}
	d, err := r.layout.AddLayer(t.Context(), root, layer.WriteOptions{Open: func(_ string, n *tree.Node) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(byDigest[n.Digest])), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	seal, err := ociimage.Seal(root)
	if err != nil {
		t.Fatal(err)
	}
	image, err := r.layout.AddImage(ociimage.ImageSpec{
		Architecture: "amd64", Layers: []layer.Descriptor{d}, Labels: map[string]string{module.LabelManifest: text},
		Annotations: map[string]string{module.AnnotationName: name, module.AnnotationVersion: version, module.AnnotationSeal: seal.String()},
	})
	if err != nil {
		t.Fatal(err)
	}
	m := nodeapi.Module{ID: name, Name: name, Version: version, Repository: "example.org/" + name, Digest: string(image.Digest), EffectivePriority: 1000}
	signed, err := signing.SignManifest(r.key, signing.Image{Digest: m.Digest, Repository: m.Repository})
	if err == nil {
		err = r.layout.Attach(t.Context(), image, ociimage.Signature{MediaType: signing.BundleMediaType, Data: signed.Bundle})
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// change does what a change does: it fetches the modules, proves and composes them, and makes the generation current.
func (r *registry) change(t *testing.T, dir string, modules ...nodeapi.Module) (err error) {
	st, err := store.Open(dir, store.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if err := st.Hold(); err != nil {
		return err
	}
	fetcher := assemble.Fetcher{Store: st, Source: r.layout, Verifier: r.verifier, Arch: "amd64", Now: time.Now}
	prover := assemble.Prover{Store: st, Verifier: r.verifier}
	var fresh assemble.Fresh
	var proven []*assemble.Proven
	for _, m := range modules {
		fetched, err := fetcher.Fetch(t.Context(), m, &fresh)
		if err != nil {
			return err
		}
		p, err := prover.Prove(t.Context(), fetched.Wanted)
		if err != nil {
			return err
		}
		proven = append(proven, p)
	}
	c, err := assemble.Compose(proven)
	if err != nil {
		return err
	}
	g, err := c.Keep(st, "test", "checked", time.Now())
	if err != nil {
		return err
	}
	return st.Pass(g.Number, time.Now(), nil)
}

// TestCollectBesidePulls: changes that fetch modules, and collections, all at the same time. No change fails, and whatever is
// there in the end is whole.
func TestCollectBesidePulls(t *testing.T) {
	const rounds = 12
	r := newRegistry(t)
	dir := t.TempDir()
	base := r.offer(t, "base", "1")
	var apps []nodeapi.Module
	for i := range rounds {
		apps = append(apps, r.offer(t, "app", fmt.Sprint(i+1)))
	}
	done := make(chan struct{})
	var collections, busy int
	var collector sync.WaitGroup
	collector.Go(func() {
		for last := false; !last; {
			select {
			case <-done:
				last = true // once more, with nobody beside it
			default:
			}
			begun := time.Now()
			st, err := store.Open(dir, store.Options{})
			if err != nil {
				t.Error(err)
				return
			}
			_, err = Collect(t.Context(), st, Options{Now: time.Now()})
			switch {
			case err == nil:
				collections++
			case fault.KindOf(err) == fault.Retry:
				busy++
			default:
				t.Error(err)
			}
			if err := st.Close(); err != nil {
				t.Error(err)
			}
			// Whoever waits for the store looks now and then, and has to find it free: also where a collection takes long.
			time.Sleep(max(time.Millisecond, time.Since(begun)))
		}
	})
	for i, app := range apps {
		// An older version comes back now and then, perhaps while it is on its way out.
		if err := r.change(t, dir, base, apps[max(0, i-i%3*2)]); err != nil {
			t.Errorf("an older one: %v", err)
		}
		if err := r.change(t, dir, base, app); err != nil {
			t.Errorf("change %d: %v", i, err)
		}
	}
	close(done)
	collector.Wait()
	t.Logf("%d collections, %d found the store busy", collections, busy)
	if collections == 0 {
		t.Error("not one collection")
	}
	st := openStore(t, dir, store.Options{})
	whole(t, st)
	generations, err := st.Generations()
	if err != nil || len(generations) > DefaultNewest+2 {
		t.Errorf("%d generations are left, %v", len(generations), err)
	}
	if current, err := st.Pointer(store.Current); err != nil || current == 0 {
		t.Errorf("current is %d, %v", current, err)
	}
}
