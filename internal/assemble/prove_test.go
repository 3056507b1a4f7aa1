package assemble

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/ociimage"
)

func nowZero() time.Time { return time.Time{} }

func TestProveAccountsForEveryCheck(t *testing.T) {
	s := newShop(t)
	want := s.get(ware{name: "app", manifest: "mask: [\"/etc/x\"]\n", files: map[string]string{"usr/a": long("a"), "usr/b": long("a"), "usr/c": long("c"), "usr/d": "inline"}})
	p := s.prove(want)[0]
	if p.Objects != 2 || p.Manifest.Mask[0] != "/etc/x" || p.Root.Lookup("usr/d") == nil {
		t.Errorf("proven: %d objects, %+v", p.Objects, p.Manifest)
	}
	var names []string
	for _, c := range p.Checks() {
		if c.Detail == "" {
			t.Errorf("check %s says nothing", c.Name)
		}
		names = append(names, string(c.Name))
	}
	if list := strings.Join(names, " "); !strings.HasSuffix(list, " seal objects") || len(names) < 4 {
		t.Errorf("checks %q", list)
	}
}

// TestProveRefuses: nothing in the store is believed.
func TestProveRefuses(t *testing.T) {
	contents := map[string]string{"usr/first": long("first"), "usr/second": long("second")}
	for _, c := range []struct {
		name  string
		spoil func(s *shop, w *Wanted, p *Proven)
		words []string
	}{
		{"an object of other bytes", func(s *shop, _ *Wanted, _ *Proven) { s.damage(s.path(fsverity.SumBytes([]byte(long("second"))))) }, []string{"/usr/second", "damaged"}},
		{"an object that is gone", func(s *shop, _ *Wanted, _ *Proven) { s.remove(s.path(fsverity.SumBytes([]byte(long("second"))))) }, []string{"/usr/second"}},
		{"an object that is a directory", func(s *shop, _ *Wanted, _ *Proven) {
			path := s.path(fsverity.SumBytes([]byte(long("second"))))
			s.remove(path)
			if err := os.Mkdir(path, 0o700); err != nil {
				s.t.Fatal(err)
			}
		}, []string{"/usr/second"}},
		{"an object that is a link to its bytes elsewhere", func(s *shop, _ *Wanted, _ *Proven) {
			path := s.path(fsverity.SumBytes([]byte(long("second"))))
			away := filepath.Join(s.t.TempDir(), "away")
			if err := errors.Join(os.Rename(path, away), os.Symlink(away, path)); err != nil {
				s.t.Fatal(err)
			}
		}, []string{"/usr/second"}},
		{"an image of other bytes", func(s *shop, _ *Wanted, p *Proven) { s.damage(s.path(p.Module.Seal)) }, []string{"image is damaged"}},
		{"an image that is gone", func(s *shop, _ *Wanted, p *Proven) { s.remove(s.path(p.Module.Seal)) }, []string{"isn't in the store"}},
		{"another name", func(_ *shop, w *Wanted, _ *Proven) { w.Name = "other" }, []string{"as module app"}},
		{"another version", func(_ *shop, w *Wanted, _ *Proven) { w.Version = "2" }, []string{"as module app 1"}},
		{"a repository without a rule", func(_ *shop, w *Wanted, _ *Proven) { w.Repository = "example.net/app" }, []string{"no rule"}},
		{"another policy", func(s *shop, _ *Wanted, _ *Proven) { s.verifier = verifierOf(s.t, newKey(s.t)) }, []string{"signature is refused"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newShop(t)
			want := s.get(ware{name: "app", files: contents})
			c.spoil(s, &want, s.prove(want)[0])
			_, err := s.proveOne(want)
			if err == nil || fault.KindOf(err) == fault.Retry {
				t.Fatalf("error %v", err)
			}
			for _, word := range append(c.words, want.String()) {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q doesn't say %q", err, word)
				}
			}
		})
	}
}

func (s *shop) remove(path string) {
	s.t.Helper()
	if err := os.Remove(path); err != nil {
		s.t.Fatal(err)
	}
}

func TestProveWhatIsNotThere(t *testing.T) {
	s := newShop(t)
	_, err := s.proveOne(Wanted{Name: "app", Version: "1", ManifestDigest: "sha256:" + strings.Repeat("0", 64)})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "app 1") {
		t.Errorf("error %v", err)
	}
}

// TestFreshIsNotHashedAgain: what this process itself hashed on its way in needs no second look,
// and only that.
func TestFreshIsNotHashedAgain(t *testing.T) {
	s := newShop(t)
	shared, own := fsverity.SumBytes([]byte(long("shared"))), fsverity.SumBytes([]byte(long("own")))
	s.get(ware{name: "before", files: map[string]string{"usr/shared": long("shared")}})
	s.open()
	s.fresh = Fresh{}
	want := s.get(ware{name: "app", files: map[string]string{"usr/shared": long("shared"), "usr/own": long("own")}})
	fresh := s.fresh.Set()
	if _, ok := fresh[shared]; ok || len(fresh) != 1 {
		t.Errorf("fresh: %v; the shared object came before", fresh)
	}
	prover := Prover{Store: s.store, Verifier: s.verifier, Fresh: fresh}
	s.damage(s.path(own))
	if _, err := prover.Prove(t.Context(), want); err != nil {
		t.Errorf("a fresh object is hashed: %v", err)
	}
	s.damage(s.path(own)) // and so made good again
	s.damage(s.path(shared))
	if _, err := prover.Prove(t.Context(), want); err == nil || !strings.Contains(err.Error(), "/usr/shared") {
		t.Errorf("an object that isn't fresh is believed: %v", err)
	}
}

func TestProveStops(t *testing.T) {
	s := newShop(t)
	want := s.get(ware{name: "app", files: map[string]string{"usr/a": long("a")}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (&Prover{Store: s.store, Verifier: s.verifier}).Prove(ctx, want); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// TestProveSource verifies a module where it is, and keeps nothing.
func TestProveSource(t *testing.T) {
	s := newShop(t)
	offered := s.offer(ware{name: "app", version: "3", files: map[string]string{"usr/a": long("a")}})
	image := s.image(offered)
	o := SourceOptions{Verifier: s.verifier, Repository: offered.Repository, Arch: "amd64"}
	p, err := ProveSource(t.Context(), s.layout, ociimage.Reference{Digest: image.Digest}, o)
	if err != nil || p.Manifest.Name != "app" || len(p.Checks()) < 4 {
		t.Fatalf("proven %+v, %v", p, err)
	}
	o.Repository = "example.net/app"
	_, err = ProveSource(t.Context(), s.layout, ociimage.Reference{Digest: image.Digest}, o)
	refused(t, err, fault.Verify, "no rule")
	if modules, err := s.store.ListModules(); len(modules) != 0 || err != nil {
		t.Errorf("kept %+v, %v", modules, err)
	}
}
