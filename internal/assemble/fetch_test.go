package assemble

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/signing"
)

func TestFetchKeepsWhatItChecked(t *testing.T) {
	s := newShop(t)
	w := ware{name: "nginx", version: "1.28", priority: 5, files: map[string]string{"usr/sbin/nginx": long("a program"), "etc/nginx.conf": "short"}}
	offered := s.offer(w)
	first, err := s.fetch(offered)
	if err != nil {
		t.Fatal(err)
	}
	if first.Pulled.Layers != 1 || first.Pulled.NewObjects != 1 || first.Wanted.ManifestDigest != offered.Digest || first.Wanted.EffectivePriority != 10_005 {
		t.Errorf("first: %+v", first)
	}
	if _, ok := s.fresh.Set()[fsverity.SumBytes([]byte(long("a program")))]; !ok || len(s.fresh.Set()) != 1 {
		t.Errorf("fresh: %v", s.fresh.Set())
	}
	m, err := s.store.GetModule(offered.Digest)
	if err != nil || m.Name != "nginx" || m.Version != "1.28" || m.Repository != offered.Repository || len(m.Bundles) != 1 || len(m.Objects) != 1 || len(m.Layers) != 1 {
		t.Errorf("kept: %+v, %v", m, err)
	}
	second, err := s.fetch(offered)
	if err != nil || second.Pulled.Layers != 0 || second.Wanted != first.Wanted {
		t.Errorf("second: %+v, %v", second, err)
	}
}

// TestFetchRefuses: a module that is refused leaves no record, whatever is wrong with it.
func TestFetchRefuses(t *testing.T) {
	foreign := newKey(t)
	good := map[string]string{"usr/a": long("a")}
	for _, c := range []struct {
		name  string
		ware  ware
		area  fault.Area
		words []string
	}{
		{"nobody signed", ware{signers: []*signing.Key{}}, fault.Verify, []string{"not signed"}},
		{"a stranger signed", ware{signers: []*signing.Key{foreign}}, fault.Verify, []string{"signature is refused"}},
		{"signed as another module", ware{annotations: map[string]string{module.AnnotationName: "other"}}, fault.Verify, []string{"as module other"}},
		{"signed as another version", ware{annotations: map[string]string{module.AnnotationVersion: "0.9"}}, fault.Verify, []string{"0.9"}},
		{"a seal of something else", ware{annotations: map[string]string{module.AnnotationSeal: strings.Repeat("cd", 32)}}, fault.Verify, []string{"its seal is not that of its content", strings.Repeat("cd", 32)}},
		{"a seal that is none", ware{annotations: map[string]string{module.AnnotationSeal: "sha256:x"}}, fault.Verify, []string{"seal that is none"}},
		{"no seal", ware{annotations: map[string]string{module.AnnotationSeal: ""}}, fault.Verify, []string{"has no seal"}},
		{"no description", ware{labels: map[string]string{module.LabelManifest: ""}}, fault.Verify, []string{"no manifest.yaml"}},
		{"a description that can't be read", ware{labels: map[string]string{module.LabelManifest: "schema_version: 9\n"}}, fault.Verify, []string{"manifest.yaml"}},
		{"another's description", ware{labels: map[string]string{module.LabelManifest: "schema_version: 1\nname: other\n"}}, fault.Verify, []string{`called "other"`}},
		{"for another machine", ware{arch: "arm64"}, fault.Input, []string{"arm64", "amd64"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newShop(t)
			c.ware.name, c.ware.version, c.ware.files = "app", "1.0", good
			_, err := s.fetch(s.offer(c.ware))
			refused(t, err, c.area, append(c.words, "app 1.0")...)
			if modules, err := s.store.ListModules(); len(modules) != 0 || err != nil {
				t.Errorf("kept: %+v, %v", modules, err)
			}
		})
	}
}

// TestSignedAgain: another signature on the same content changes what is kept of the module, and
// pulls nothing. Rubbish that somebody attaches isn't kept.
func TestSignedAgain(t *testing.T) {
	s := newShop(t)
	offered := s.offer(ware{name: "app", files: map[string]string{"usr/a": long("a")}})
	if _, err := s.fetch(offered); err != nil {
		t.Fatal(err)
	}
	s.sign(offered, s.image(offered), newKey(t))
	second := newKey(t)
	s.sign(offered, s.image(offered), second)
	f, err := s.fetch(offered)
	if err != nil || f.Pulled.Layers != 0 {
		t.Errorf("signed by strangers, too: %+v, %v", f, err)
	}
	if m, err := s.store.GetModule(offered.Digest); err != nil || len(m.Bundles) != 1 {
		t.Errorf("kept %d signatures, %v", len(m.Bundles), err)
	}

	s.verifier = verifierOf(t, second)
	if _, err := s.proveOne(f.Wanted); err == nil {
		t.Error("the policy's key has changed, and the store's signature still counts")
	}
	if f, err = s.fetch(offered); err != nil || f.Pulled.Layers != 0 {
		t.Errorf("after a change of the policy: %+v, %v", f, err)
	}
	s.prove(f.Wanted)

	moved := offered
	moved.Repository = "example.org/elsewhere/app"
	if f, err = s.fetch(moved); err != nil || f.Pulled.Layers != 0 {
		t.Errorf("after a move: %+v, %v", f, err)
	}
	if m, err := s.store.GetModule(offered.Digest); err != nil || m.Repository != moved.Repository {
		t.Errorf("kept %+v, %v", m, err)
	}
}

// TestFetchMends: what the store has lost of a module, or has a damaged record of, is pulled again.
func TestFetchMends(t *testing.T) {
	content := long("the app's only object")
	for name, spoil := range map[string]func(s *shop, dir string, m fsverity.Digest) error{
		"an object is gone": func(s *shop, _ string, _ fsverity.Digest) error {
			return os.Remove(s.path(fsverity.SumBytes([]byte(content))))
		},
		"the image is gone": func(s *shop, _ string, seal fsverity.Digest) error { return os.Remove(s.path(seal)) },
		"the record is damaged": func(_ *shop, dir string, _ fsverity.Digest) error {
			return os.WriteFile(filepath.Join(dir, "module.json"), []byte("{"), 0o600)
		},
		"the manifest is another": func(_ *shop, dir string, _ fsverity.Digest) error {
			return os.WriteFile(filepath.Join(dir, "manifest.json"), []byte("{}"), 0o600)
		},
		"the signature is gone": func(_ *shop, dir string, _ fsverity.Digest) error {
			return os.Remove(filepath.Join(dir, "bundle-00.json"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t)
			offered := s.offer(ware{name: "app", files: map[string]string{"usr/a": content}})
			first, err := s.fetch(offered)
			if err != nil {
				t.Fatal(err)
			}
			p := s.prove(first.Wanted)[0]
			dir := filepath.Join(s.store.Path(), "modules", strings.TrimPrefix(offered.Digest, "sha256:"))
			if err := spoil(s, dir, p.Module.Seal); err != nil {
				t.Fatal(err)
			}
			if _, err := s.proveOne(first.Wanted); err == nil {
				t.Error("the damage isn't noticed")
			}
			again, err := s.fetch(offered)
			if err != nil || again.Pulled.Layers != 1 {
				t.Fatalf("fetched again: %+v, %v", again, err)
			}
			s.prove(again.Wanted)
		})
	}
}

// TestFetchTellsProgress: what is told adds up to what is pulled, and every beginning has an end.
func TestFetchTellsProgress(t *testing.T) {
	s := newShop(t)
	offered := s.offer(ware{name: "app", files: map[string]string{"usr/a": long("a")}})
	var told, total int64
	var ends []error
	f := Fetcher{
		Store: s.store, Source: s.layout, Verifier: s.verifier, Arch: "amd64", Now: nowZero,
		Progress: func(name string, n int64) (func(int64), func(error)) {
			if name != "pull app 1" {
				t.Errorf("progress of %q", name)
			}
			total = n
			return func(n int64) { told += n }, func(err error) { ends = append(ends, err) }
		},
	}
	got, err := f.Fetch(t.Context(), offered, &Fresh{})
	if err != nil || told != total || total != got.Pulled.Compressed || !slices.Equal(ends, []error{nil}) {
		t.Errorf("told %d of %d, pulled %+v, ends %v, %v", told, total, got.Pulled, ends, err)
	}
	if _, err := f.Fetch(t.Context(), offered, &Fresh{}); err != nil || len(ends) != 1 {
		t.Errorf("nothing is pulled, and told: %v, %v", ends, err)
	}
	if len(slices.Collect(maps.Keys(s.fresh.Set()))) != 0 {
		t.Error("another's fresh objects")
	}
}
