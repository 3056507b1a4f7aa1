package boot

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/store"
)

// onDisk returns a boot from a disk with that history, whose store is still to be opened.
func onDisk(t *testing.T, ran ...string) (*boot, string) {
	t.Helper()
	b := newBoot(Config{Now: time.Now, Console: io.Discard, Health: ByService})
	b.persistDir = t.TempDir()
	dir := StateDir(b.persistDir)
	st, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h := &history{t, st}
	for _, r := range ran {
		h.ran(r)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.close)
	return b, dir
}

// TestStoreThatCannotBeWritten: what is there is booted, as from a disk that can only be read, and the next
// attempt may find it mended.
func TestStoreThatCannotBeWritten(t *testing.T) {
	for _, name := range []string{"unsynced", "boot.lock"} {
		b, dir := onDisk(t, "base 1")
		inTheWay := filepath.Join(dir, name)
		if err := os.RemoveAll(inTheWay); err != nil {
			t.Fatal(err)
		}
		if name == "unsynced" {
			if err := os.WriteFile(inTheWay, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		} else if err := os.Mkdir(inTheWay, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := b.openStore(); err != nil || !b.persist.ReadOnly || len(b.facts.Remarks) != 1 {
			t.Fatalf("%s: %v, %+v, %q", name, err, b.persist, b.facts.Remarks)
		}
		if said, err := b.enroll(t.Context()); err != nil || b.plan.back.Generation != 1 {
			t.Errorf("%s: %s, %v", name, said, err)
		}
		b.undo()
		if err := os.RemoveAll(inTheWay); err != nil {
			t.Fatal(err)
		}
		if err := b.openStore(); err != nil || b.persist.ReadOnly {
			t.Errorf("%s, mended: %v, %+v", name, err, b.persist)
		}
	}
}

// TestStoreWithNothingToBoot says what is wrong with it, not that it can only be read.
func TestStoreWithNothingToBoot(t *testing.T) {
	b, dir := onDisk(t)
	if err := os.RemoveAll(filepath.Join(dir, "unsynced")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "unsynced"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.openStore(); err == nil || !strings.Contains(err.Error(), "unsynced") || b.persist.ReadOnly {
		t.Errorf("%v, %+v", err, b.persist)
	}
}

// TestStoreOfUnknownFormat: its mark is worth less than what it holds.
func TestStoreOfUnknownFormat(t *testing.T) {
	b, dir := onDisk(t, "base 1")
	if err := os.Truncate(filepath.Join(dir, "store.json"), 0); err != nil {
		t.Fatal(err)
	}
	if err := b.openStore(); err != nil || b.persist.ReadOnly || len(b.facts.Remarks) != 1 || !strings.Contains(b.facts.Remarks[0], "store.json") {
		t.Errorf("%v, %+v, %q", err, b.persist, b.facts.Remarks)
	}
}
