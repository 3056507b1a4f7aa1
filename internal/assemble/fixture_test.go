package assemble

import (
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/opencontainers/go-digest"

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

// shop is a place that modules come from, a node's store, and the policy between them.
type shop struct {
	t        *testing.T
	at       string // the layout's directory
	layout   *ociimage.Layout
	store    *store.Store
	verifier *signature.Verifier
	key      *signing.Key
	fresh    Fresh
}

func newShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{t: t, key: newKey(t)}
	s.verifier = verifierOf(t, s.key)
	var err error
	s.at = filepath.Join(t.TempDir(), "layout")
	if s.layout, err = ociimage.CreateLayout(s.at); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.layout.Close() })
	s.open()
	return s
}

// open opens the store, again if it was open.
func (s *shop) open() {
	s.t.Helper()
	dir := filepath.Join(s.t.TempDir(), "store")
	if s.store != nil {
		dir = s.store.Path()
		s.store.Close()
	}
	var err error
	if s.store, err = store.Open(dir, store.Options{}); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { s.store.Close() })
}

func newKey(t *testing.T) *signing.Key {
	t.Helper()
	key, err := signing.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// verifierOf trusts a key for the images of example.org.
func verifierOf(t *testing.T, key *signing.Key) *signature.Verifier {
	t.Helper()
	policy, err := signature.LoadPolicy([]byte("schema_version: 1\nrules:\n  - name: r\n    images: [\"example.org/**\"]\n    keys: [{file: k.pub}]\n"),
		fstest.MapFS{"k.pub": {Data: key.PublicPEM()}})
	if err != nil {
		t.Fatal(err)
	}
	v, err := signature.NewVerifier(policy, signature.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// ware is a module on offer. Zero fields are as they should be.
type ware struct {
	name, version string
	priority      int
	files         map[string]string
	manifest      string
	arch          string
	// annotations and labels go over those that a publisher would set.
	annotations, labels map[string]string
	// signers are those who sign; nil is the shop's key, an empty list nobody.
	signers []*signing.Key
}

// offer puts a module into the layout and returns what the platform would say of it.
func (s *shop) offer(w ware) nodeapi.Module {
	s.t.Helper()
	if w.version == "" {
		w.version = "1"
	}
	if w.arch == "" {
		w.arch = "amd64"
	}
	text := "schema_version: 1\nname: " + w.name + "\n" + w.manifest
	root, contents := treeOf(w.files, text, w.name)
	d, err := s.layout.AddLayer(s.t.Context(), root, layer.WriteOptions{Open: func(_ string, n *tree.Node) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(contents[n.Digest])), nil
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	seal, err := ociimage.Seal(root)
	if err != nil {
		s.t.Fatal(err)
	}
	spec := ociimage.ImageSpec{
		Architecture: w.arch, Layers: []layer.Descriptor{d}, Labels: map[string]string{module.LabelManifest: text},
		Annotations: map[string]string{module.AnnotationName: w.name, module.AnnotationVersion: w.version, module.AnnotationSeal: seal.String()},
	}
	overlay(spec.Annotations, w.annotations)
	overlay(spec.Labels, w.labels)
	image, err := s.layout.AddImage(spec)
	if err != nil {
		s.t.Fatal(err)
	}
	m := nodeapi.Module{
		ID: "id-" + w.name, Name: w.name, Version: w.version, Repository: "example.org/modules/" + w.name,
		Digest: string(image.Digest), EffectivePriority: 10_000 + w.priority,
	}
	if w.signers == nil {
		w.signers = []*signing.Key{s.key}
	}
	for _, key := range w.signers {
		s.sign(m, image, key)
	}
	return m
}

// overlay copies, and takes away what is "" in from.
func overlay(onto, from map[string]string) {
	maps.Copy(onto, from)
	maps.DeleteFunc(onto, func(_, v string) bool { return v == "" })
}

func (s *shop) sign(m nodeapi.Module, image *ociimage.Image, key *signing.Key) {
	s.t.Helper()
	signed, err := signing.SignManifest(key, signing.Image{Digest: string(image.Digest), Repository: m.Repository})
	if err == nil {
		err = s.layout.Attach(s.t.Context(), image, ociimage.Signature{MediaType: signing.BundleMediaType, Data: signed.Bundle})
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// image finds the image of a module on offer.
func (s *shop) image(m nodeapi.Module) *ociimage.Image {
	s.t.Helper()
	image, err := s.layout.Resolve(s.t.Context(), ociimage.Reference{Digest: digest.Digest(m.Digest)}, "")
	if err != nil {
		s.t.Fatal(err)
	}
	return image
}

// fetch fetches a module.
func (s *shop) fetch(m nodeapi.Module) (Fetched, error) {
	f := Fetcher{Store: s.store, Source: s.layout, Verifier: s.verifier, Arch: "amd64", Now: time.Now}
	return f.Fetch(s.t.Context(), m, &s.fresh)
}

// get fetches a module, which must go well.
func (s *shop) get(w ware) Wanted {
	s.t.Helper()
	f, err := s.fetch(s.offer(w))
	if err != nil {
		s.t.Fatal(err)
	}
	return f.Wanted
}

// prove proves modules from the store alone, which must go well.
func (s *shop) prove(wanted ...Wanted) []*Proven {
	s.t.Helper()
	var proven []*Proven
	for _, w := range wanted {
		p, err := s.proveOne(w)
		if err != nil {
			s.t.Fatal(err)
		}
		proven = append(proven, p)
	}
	return proven
}

func (s *shop) proveOne(w Wanted) (*Proven, error) {
	prover := Prover{Store: s.store, Verifier: s.verifier}
	return prover.Prove(s.t.Context(), w)
}

// path returns where the store keeps the object of a content.
func (s *shop) path(d fsverity.Digest) string {
	return filepath.Join(s.store.ObjectsPath(), d.ObjectPath())
}

// damage flips the first byte of a file.
func (s *shop) damage(path string) {
	s.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	text[0] ^= 1
	if err := os.Remove(path); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o400); err != nil {
		s.t.Fatal(err)
	}
}

// refused fails the test unless err refuses as a matter of verification, or is of another area
// where one is given, and says all these words.
func refused(t *testing.T, err error, area fault.Area, words ...string) {
	t.Helper()
	if err == nil || fault.KindOf(err) == fault.Retry || fault.AreaOf(err) != area || fault.HintOf(err) == "" {
		t.Fatalf("error %v, kind %v, area %v, hint %q", err, fault.KindOf(err), fault.AreaOf(err), fault.HintOf(err))
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q doesn't say %q", err, word)
		}
	}
}

// treeOf makes a tree of files, with the module's own manifest.yaml.
func treeOf(files map[string]string, manifest, name string) (*tree.Node, map[fsverity.Digest]string) {
	root, contents := tree.NewDir(0o755), make(map[fsverity.Digest]string)
	all := map[string]string{module.ManifestPath(name): manifest}
	maps.Copy(all, files)
	for path, text := range all {
		dir := root
		parts := strings.Split(path, "/")
		for _, part := range parts[:len(parts)-1] {
			if dir.Child(part) == nil {
				dir.SetChild(part, tree.NewDir(0o755))
			}
			dir = dir.Child(part)
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
