package store

import (
	"bytes"
	"fmt"
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fsverity"
)

// content returns size bytes that differ from those of another seed in every block.
func content(seed string, size int) []byte {
	data := make([]byte, size)
	first := fsverity.SumBytes([]byte(seed))
	for i := 0; i < size; i++ {
		data[i] = first[i%32] + byte(i>>12)
	}
	return data
}

func openStore(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func put(t testing.TB, s *Store, data []byte) fsverity.Digest {
	t.Helper()
	w, err := s.NewObject(int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	d, _, err := w.Commit()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// sample is a module with what belongs to it.
type sample struct {
	module  Module
	image   []byte
	objects [][]byte
}

func makeSample(name string, bundles int) sample {
	x := sample{image: content(name+" image", 20_000)}
	manifest := fmt.Appendf(nil, `{"name":%q}`, name)
	x.module = Module{
		Name: name, Version: "1.0", Repository: "registry.example/" + name, ManifestDigest: "sha256:" + sha256Hex(manifest),
		Seal: fsverity.SumBytes(x.image), PulledAt: time.Date(2026, 11, 23, 4, 5, 6, 0, time.UTC), Manifest: manifest, Config: []byte(`{"config":"` + name + `"}`),
		Layers: []Layer{{MediaType: "application/vnd.oci.image.layer.v1.tar+zstd", Digest: "sha256:" + sha256Hex(nil), Size: 7}},
	}
	for i := range bundles {
		x.module.Bundles = append(x.module.Bundles, fmt.Appendf(nil, "bundle %d", i))
	}
	for i, size := range []int{100, 5000, 70_000} {
		x.objects = append(x.objects, content(fmt.Sprint(name, " object ", i), size))
	}
	// Every module shares one object with all others.
	x.objects = append(x.objects, content("shared", 3000))
	for _, data := range x.objects {
		x.module.Objects = append(x.module.Objects, fsverity.SumBytes(data))
	}
	return x
}

// put does what a pull does.
func (x sample) put(s *Store) error {
	for _, data := range x.objects {
		w, err := s.NewObject(int64(len(data)))
		if err != nil {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
		if _, _, err := w.Commit(); err != nil {
			return err
		}
	}
	return s.PutModule(x.module, bytes.NewReader(x.image))
}

func (x sample) generation(root []byte) Generation {
	return Generation{
		Created: x.module.PulledAt, RootDigest: fsverity.SumBytes(root), Cause: "test", Level: "checked",
		Modules: []GenerationModule{{ID: "7", Name: x.module.Name, Version: x.module.Version, ManifestDigest: x.module.ManifestDigest, Seal: x.module.Seal, EffectivePriority: 1001}},
	}
}

// checkWhole fails the test unless everything in the store is whole and fits together.
func checkWhole(t testing.TB, s *Store) {
	t.Helper()
	modules, err := s.ListModules()
	if err != nil {
		t.Errorf("list modules: %v", err)
	}
	for _, m := range modules {
		m, err := s.GetModule(m.ManifestDigest)
		if err != nil {
			t.Errorf("a module that is listed: %v", err)
		}
		if _, err := s.VerifyObjects(t.Context(), append(m.Objects, m.Seal)); err != nil {
			t.Errorf("an object of module %s: %v", m.Name, err)
		}
	}
	generations, err := s.Generations()
	if err != nil {
		t.Errorf("list generations: %v", err)
	}
	for _, g := range generations {
		if err := s.VerifyObject(g.RootDigest); err != nil {
			t.Errorf("root image of generation %d: %v", g.Number, err)
		}
		for _, m := range g.Modules {
			if _, err := s.GetModule(m.ManifestDigest); err != nil {
				t.Errorf("a module of generation %d: %v", g.Number, err)
			}
		}
	}
	for _, name := range []PointerName{Current, Previous, Staged} {
		n, err := s.Pointer(name)
		if err != nil {
			t.Errorf("pointer %s: %v", name, err)
		} else if n != 0 {
			if _, err := s.Generation(n); err != nil {
				t.Errorf("pointer %s: %v", name, err)
			}
		}
	}
	for d, err := range s.Objects() {
		if err != nil {
			t.Fatal(err)
		}
		if err := s.VerifyObject(d); err != nil {
			t.Errorf("an object that nothing refers to: %v", err)
		}
	}
}

// files returns the paths of all files below dir, relative to it.
func files(t testing.TB, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			name, _ := filepath.Rel(dir, path)
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
