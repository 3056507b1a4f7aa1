package agentcli

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/rootfs"
	"github.com/powernode/powernode-agent/internal/store"
)

// TestRoomWatch: what is told of a writable layer that fills up and is emptied.
func TestRoomWatch(t *testing.T) {
	var log strings.Builder
	var percent uint64
	w := &roomWatch{log: slog.New(slog.NewTextHandler(&log, nil)), measure: func(last rootfs.Fullness) (rootfs.Room, error) {
		u := rootfs.Usage{UsedBytes: percent, TotalBytes: 100}
		return rootfs.Room{Usage: u, AvailableBytes: 100 - percent, Percent: int(percent), Fullness: last.Grade(u)}, nil
	}}
	for _, c := range []struct {
		percent   uint64
		log, said string
	}{
		{10, "", ""},
		{82, "level=WARN msg=\"the writable layer of the root is 82 % full\"", "82 % full; remove files"},
		{85, "", "85 % full"},
		{79, "", "79 % full"},
		{95, "level=WARN", "95 % full"},
		{99, "", "99 % full"},
		{84, "level=INFO", "84 % full"},
		{20, "has room again", ""},
		{91, "level=WARN", "91 % full"},
	} {
		log.Reset()
		percent = c.percent
		if done, err := w.look(t.Context()); done || err != nil {
			t.Fatal(done, err)
		}
		if got := log.String(); (got == "") != (c.log == "") || !strings.Contains(got, c.log) {
			t.Errorf("%d %%: the log has %q, not %q", c.percent, got, c.log)
		}
		if got := strings.Join(w.Remarks(), "\n"); (got == "") != (c.said == "") || !strings.Contains(got, c.said) {
			t.Errorf("%d %%: remarks %q, not %q", c.percent, got, c.said)
		}
	}
}

// TestPrune: only what no generation has goes, and nothing before the running one is good, while
// somebody else works, or while a record can't be read.
func TestPrune(t *testing.T) {
	dir := t.TempDir()
	st, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	uppers := make(map[string]string)
	layer := func(name string) fsverity.Digest {
		digest := fsverity.SumBytes([]byte(name))
		uppers[name] = filepath.Join(dir, "upper", digest.String()+".enforced")
		if err := os.MkdirAll(filepath.Join(uppers[name], "upper", "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		return digest
	}
	for _, name := range []string{"one", "two", "three"} {
		if _, err := st.PutGeneration(store.Generation{RootDigest: layer(name)}, bytes.NewReader([]byte(name))); err != nil {
			t.Fatal(err)
		}
	}
	layer("old")
	// Since the service began generation 2 has gone live, over the root that was booted.
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, boot.RunDir), 0o755); err != nil {
		t.Fatal(err)
	}
	facts := fmt.Sprintf(`{"generation":2,"root_digest":%q,"base_root_digest":%q}`, fsverity.SumBytes([]byte("two")), layer("running"))
	if err := os.WriteFile(filepath.Join(root, boot.RunDir, boot.FactsName), []byte(facts), 0o600); err != nil {
		t.Fatal(err)
	}
	u := upkeep{root: root, stateDir: dir, facts: boot.Facts{Generation: 1, RootDigest: layer("running")}, log: slog.New(slog.DiscardHandler)}
	try := func(when string, want bool, gone ...string) {
		t.Helper()
		if done, err := u.prune(t.Context()); done != want {
			t.Errorf("%s: done %t, %v", when, done, err)
		}
		for name, path := range uppers {
			_, err := os.Stat(path)
			if (err != nil) != (strings.Join(gone, " ") == name) {
				t.Errorf("%s: the layer of %s: %v", when, name, err)
			}
		}
	}
	try("on trial", false)
	if err := st.Pass(2, time.Now(), nil); err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(dir, "generations", "1.json")
	good, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	put := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(record, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put([]byte("{"))
	try("a damaged record", false)
	put(good)
	lock, err := reconcile.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	try("somebody else works", false)
	lock.Unlock()
	try("good", true, "old")
}
