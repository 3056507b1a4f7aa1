package assemble

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

// mend has damage mended that proving w finds.
func (s *shop) mend(w Wanted) error {
	s.t.Helper()
	_, err := s.proveOne(w)
	damage, ok := errors.AsType[*DamageError](err)
	if !ok {
		s.t.Fatalf("no damage is found: %v", err)
	}
	f := Fetcher{Store: s.store, Source: s.layout, Verifier: s.verifier, Arch: "amd64", Now: time.Now}
	_, err = f.Mend(s.t.Context(), damage, &s.fresh)
	return err
}

// TestMend: whatever of a module is damaged in the store is whole again after its layers were
// fetched once more.
func TestMend(t *testing.T) {
	contents := map[string]string{"usr/first": long("first"), "usr/second": long("second"), "usr/third": long("third")}
	object := func(s *shop, name string) string { return s.path(fsverity.SumBytes([]byte(contents[name]))) }
	record := func(s *shop, w Wanted, name string) string {
		return filepath.Join(s.store.Path(), "modules", strings.TrimPrefix(w.ManifestDigest, "sha256:"), name)
	}
	for _, c := range []struct {
		name  string
		spoil func(s *shop, w Wanted, p *Proven)
	}{
		{"an object", func(s *shop, _ Wanted, _ *Proven) { s.damage(object(s, "usr/second")) }},
		{"two objects, one of them gone", func(s *shop, _ Wanted, _ *Proven) {
			s.damage(object(s, "usr/first"))
			s.remove(object(s, "usr/third"))
		}},
		{"an object cut short", func(s *shop, _ Wanted, _ *Proven) { s.truncate(object(s, "usr/second")) }},
		{"an object that is a directory", func(s *shop, _ Wanted, _ *Proven) {
			s.remove(object(s, "usr/second"))
			if err := os.Mkdir(object(s, "usr/second"), 0o700); err != nil {
				s.t.Fatal(err)
			}
		}},
		{"the image", func(s *shop, _ Wanted, p *Proven) { s.damage(s.path(p.Module.Seal)) }},
		{"the image and an object", func(s *shop, _ Wanted, p *Proven) {
			s.remove(s.path(p.Module.Seal))
			s.damage(object(s, "usr/second"))
		}},
		{"the record", func(s *shop, w Wanted, _ *Proven) { s.truncate(record(s, w, "module.json")) }},
		{"the manifest", func(s *shop, w Wanted, _ *Proven) { s.damage(record(s, w, "manifest.json")) }},
		{"the signature", func(s *shop, w Wanted, _ *Proven) { s.damage(record(s, w, "bundle-00.json")) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newShop(t)
			want := s.get(ware{name: "app", files: contents})
			other := s.get(ware{name: "other", files: map[string]string{"usr/other": long("other")}})
			c.spoil(s, want, s.prove(want)[0])
			if err := s.mend(want); err != nil {
				t.Fatal(err)
			}
			if p := s.prove(want, other); p[0].Objects != 3 {
				t.Errorf("%d objects", p[0].Objects)
			}
		})
	}
}

func (s *shop) truncate(path string) {
	s.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	// A file under fs-verity can't be written to, only replaced.
	s.remove(path)
	if err := os.WriteFile(path, text[:len(text)/2], 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// TestMendTakesNothingAway: where the module can't be had again, what is damaged stays for whoever
// can get something out of it.
func TestMendTakesNothingAway(t *testing.T) {
	s := newShop(t)
	offered := s.offer(ware{name: "app", files: map[string]string{"usr/a": long("a"), "usr/b": long("b")}})
	f, err := s.fetch(offered)
	if err != nil {
		t.Fatal(err)
	}
	path := s.path(fsverity.SumBytes([]byte(long("a"))))
	s.damage(path)
	damaged, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	blob := filepath.Join(filepath.Dir(s.store.Path()), "nowhere")
	layer := filepath.Join(s.at, "blobs", "sha256", s.image(offered).Layers[0].Digest.Encoded())
	for _, c := range []struct {
		name  string
		spoil func() error
	}{
		{"a layer of other bytes", func() error {
			bytes, err := os.ReadFile(layer)
			if err != nil {
				return err
			}
			bytes[len(bytes)/2] ^= 1
			return errors.Join(os.Rename(layer, blob), os.WriteFile(layer, bytes, 0o600))
		}},
		{"no layer", func() error { return os.Remove(layer) }},
	} {
		if err := c.spoil(); err != nil {
			t.Fatal(err)
		}
		err := s.mend(f.Wanted)
		if err == nil || !strings.Contains(err.Error(), "fetch module app 1 again: ") {
			t.Errorf("%s: %v", c.name, err)
		}
		if now, err := os.ReadFile(path); err != nil || string(now) != string(damaged) {
			t.Errorf("%s: the damaged object changed: %v", c.name, err)
		}
		if err := os.Rename(blob, layer); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// TestDamageIsDescribed: the error tells all objects, and its kind is the cause's.
func TestDamageIsDescribed(t *testing.T) {
	s := newShop(t)
	want := s.get(ware{name: "app", files: map[string]string{"usr/a": long("a"), "usr/b": long("b")}})
	s.damage(s.path(fsverity.SumBytes([]byte(long("a")))))
	s.damage(s.path(fsverity.SumBytes([]byte(long("b")))))
	_, err := s.proveOne(want)
	damage, ok := errors.AsType[*DamageError](err)
	if !ok || len(damage.Objects) != 2 || damage.Record || damage.Wanted != want {
		t.Fatalf("%+v, %v", damage, err)
	}
	refused(t, err, fault.Verify, "app 1: /usr/a: object", "damaged", "(and 1 more of its objects)")
}
