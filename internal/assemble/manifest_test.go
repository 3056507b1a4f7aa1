package assemble

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The manifest that the store has is the one that was proven.
func TestManifestOfTheStore(t *testing.T) {
	s := newShop(t)
	want := s.get(ware{name: "app", manifest: "mask: [\"/etc/x\"]\n", files: map[string]string{"usr/a": "a"}})
	got, err := Manifest(s.store, want.ManifestDigest)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s.prove(want)[0].Manifest, got); diff != "" {
		t.Error(diff)
	}
	if _, err := Manifest(s.store, "sha256:"+strings.Repeat("0", 64)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a module that isn't here: %v", err)
	}
}
