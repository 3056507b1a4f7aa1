package change

import (
	"context"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/layer"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/signature"
	"github.com/powernode/powernode-agent/internal/signing"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/tree"
)

// world is a platform with its registry, and one node's store.
type world struct {
	t        testing.TB
	at       string // the registry, an OCI layout
	layout   *ociimage.Layout
	store    *store.Store
	key      *signing.Key
	verifier *signature.Verifier

	// host is the registry that modules are published in; all are in the one layout.
	host string

	// manifest is added to the next module's manifest.yaml.
	manifest string

	// The platform's answer.
	list  nodeapi.ModuleList
	down  error
	level mount.Level
}

// Modules implements Platform.
func (w *world) Modules(context.Context) (*nodeapi.ModuleList, error) {
	list := w.list
	list.Modules, list.Count = slices.Clone(list.Modules), len(list.Modules)
	return &list, w.down
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, level: mount.Checked, host: "example.org", at: filepath.Join(t.TempDir(), "layout")}
	var err error
	if w.key, err = signing.GenerateKey(); err != nil {
		t.Fatal(err)
	}
	policy, err := signature.LoadPolicy([]byte("schema_version: 1\nrules:\n  - name: r\n    images: [\"example.org/**\", \"127.0.0.1:1/**\"]\n    keys: [{file: k.pub}]\n"),
		fstest.MapFS{"k.pub": {Data: w.key.PublicPEM()}})
	if err == nil {
		w.verifier, err = signature.NewVerifier(policy, signature.Options{})
	}
	if err == nil {
		w.layout, err = ociimage.CreateLayout(w.at)
	}
	if err == nil {
		w.store, err = store.Open(filepath.Join(t.TempDir(), "store"), store.Options{})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.store.Close(); w.layout.Close() })
	return w
}

// publish puts a module into the registry, signed unless by is nil, and returns what the platform
// says of it.
func (w *world) publish(name, version string, files map[string]string, by *signing.Key) nodeapi.Module {
	w.t.Helper()
	text := "schema_version: 1\nname: " + name + "\n" + w.manifest
	w.manifest = ""
	root, contents := treeOf(files, text, name)
	d, err := w.layout.AddLayer(w.t.Context(), root, layer.WriteOptions{Open: func(_ string, n *tree.Node) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(contents[n.Digest])), nil
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	seal, err := ociimage.Seal(root)
	if err != nil {
		w.t.Fatal(err)
	}
	image, err := w.layout.AddImage(ociimage.ImageSpec{
		Architecture: "amd64", Layers: []layer.Descriptor{d}, Labels: map[string]string{module.LabelManifest: text},
		Annotations: map[string]string{module.AnnotationName: name, module.AnnotationVersion: version, module.AnnotationSeal: seal.String()},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	m := nodeapi.Module{
		ID: "id-" + name, Name: name, Version: version, Repository: w.host + "/modules/" + name, Digest: string(image.Digest), EffectivePriority: 10_000,
	}
	if by == nil {
		return m
	}
	signed, err := signing.SignManifest(by, signing.Image{Digest: m.Digest, Repository: m.Repository})
	if err == nil {
		err = w.layout.Attach(w.t.Context(), image, ociimage.Signature{MediaType: signing.BundleMediaType, Data: signed.Bundle})
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

// module publishes and assigns a module, in place of what had its name.
func (w *world) module(name, version string, files map[string]string) nodeapi.Module {
	w.t.Helper()
	m := w.publish(name, version, files, w.key)
	w.assign(m)
	return m
}

func (w *world) assign(m nodeapi.Module) {
	w.list.Modules = slices.DeleteFunc(w.list.Modules, func(o nodeapi.Module) bool { return o.Name == m.Name })
	w.list.Modules = append(w.list.Modules, m)
}

// reconciler returns one on the world's store.
func (w *world) reconciler(change ...func(*reconcile.Config)) *reconcile.Reconciler {
	w.t.Helper()
	c := reconcile.Config{Store: w.store, Verifier: w.verifier, Arch: "amd64", Level: w.level, Platform: w, Source: w.layout}
	for _, f := range change {
		f(&c)
	}
	r, err := reconcile.New(c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(r.Close)
	return r
}

// boot fetches, proves, composes and keeps what is assigned, and makes it current.
func (w *world) boot() store.Generation {
	w.t.Helper()
	r := w.reconciler()
	plan, err := r.Fetch(w.t.Context())
	if err == nil {
		err = plan.Err()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	proven, err := r.Prove(w.t.Context(), plan.Wanted)
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := r.Compose(w.t.Context(), proven)
	if err != nil {
		w.t.Fatal(err)
	}
	g, err := r.Keep(c, "test")
	if err == nil {
		err = w.store.Pass(g.Number, time.Now(), nil)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

func treeOf(files map[string]string, manifest, name string) (*tree.Node, map[fsverity.Digest]string) {
	root, contents := tree.NewDir(0o755), make(map[fsverity.Digest]string)
	all := map[string]string{module.ManifestPath(name): manifest}
	maps.Copy(all, files)
	for path, text := range all {
		dir := root
		parts := strings.Split(path, "/")
		for _, p := range parts[:len(parts)-1] {
			if dir.Child(p) == nil {
				dir.SetChild(p, tree.NewDir(0o755))
			}
			dir = dir.Child(p)
		}
		n := &tree.Node{Kind: tree.Regular, Mode: 0o644, Size: uint64(len(text))}
		if len(text) <= tree.InlineMax {
			n.Inline = []byte(text)
		} else {
			n.Digest = fsverity.SumBytes([]byte(text))
			contents[n.Digest] = text
		}
		dir.SetChild(parts[len(parts)-1], n)
	}
	return root, contents
}

// long returns a text that doesn't lie in an image itself.
func long(s string) string { return strings.Repeat(s+" ", 100) }
