package main

import (
	"bytes"
	"os"
	"os/exec"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// TestSeedIsWhatMkfsMakes makes the seed again.
func TestSeedIsWhatMkfsMakes(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "mkfs.ext4", "-V").CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("1.47.0")) {
		t.Skipf("needs mkfs.ext4 1.47.0, here is: %v %s", err, out)
	}
	packed, err := os.ReadFile("../seed.zst")
	if err != nil {
		t.Fatal(err)
	}
	r, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	committed, err := r.DecodeAll(packed, nil)
	if err != nil {
		t.Fatal(err)
	}
	made, err := seed()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(committed, made) {
		t.Errorf("seed.zst (%d bytes) isn't what mkseed makes (%d bytes): run go generate ./internal/persist and look at the difference", len(committed), len(made))
	}
}
