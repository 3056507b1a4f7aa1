package retain

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/store"
)

const (
	mib  = 1 << 20
	zstd = "application/vnd.oci.image.layer.v1.tar+zstd"
	tar  = "application/vnd.oci.image.layer.v1.tar"
)

func TestNeedOf(t *testing.T) {
	l := func(name string, size int64) store.Layer {
		return store.Layer{MediaType: zstd, Digest: name, Size: size}
	}
	pulls := func(lists ...[]store.Layer) (pulls []Pull) {
		for _, layers := range lists {
			pulls = append(pulls, Pull{Layers: layers})
		}
		return pulls
	}
	for _, c := range []struct {
		name               string
		pulls              []Pull
		download, unpacked int64
	}{
		{"nothing", nil, 0, 0},
		{"one layer", pulls([]store.Layer{l("a", 10*mib)}), 10 * mib, 40 * mib},
		{"a layer as it is", pulls([]store.Layer{{MediaType: tar, Digest: "a", Size: 10 * mib}}), 10 * mib, 20 * mib},
		{"three layers at a time", pulls([]store.Layer{l("a", 1), l("b", 20), l("c", 300), l("d", 4000)}), 4320, 4321 * 4},
		{"the same layer twice", pulls([]store.Layer{l("a", 10), l("a", 10)}), 10, 40},
		{"one module after another", pulls([]store.Layer{l("a", 10)}, []store.Layer{l("b", 30)}, []store.Layer{l("c", 20)}), 30, 240},
		{"what another module has", pulls([]store.Layer{l("here", 100), l("a", 10)}), 110, 40},
		{"what was begun", pulls([]store.Layer{l("begun", 100)}), 40, 400},
		{"more begun than there is", pulls([]store.Layer{l("begun", 50)}), 0, 200},
		{"no more than a module may hold", pulls([]store.Layer{l("a", 100<<30)}, []store.Layer{l("b", mib)}), 100 << 30, 32<<30 + 4*mib},
		{"the largest there is", pulls([]store.Layer{l("a", math.MaxInt64), l("b", math.MaxInt64)}), math.MaxInt64, 32 << 30},
		{"another version", []Pull{{Name: "old", Layers: []store.Layer{l("a", 100)}}}, 100, 100},
		{"less than nothing", pulls([]store.Layer{l("a", -5), l("b", math.MinInt64)}), 0, 0},
	} {
		got := NeedOf(c.pulls, Here{Modules: map[string]bool{"old": true}, Layers: map[string]bool{"here": true}, Begun: map[string]int64{"begun": 60}})
		if got.Download != c.download || got.Unpacked != c.unpacked || got.Files != c.unpacked/fileSize {
			t.Errorf("%s: %+v, want %d and %d", c.name, got, c.download, c.unpacked)
		}
		if got.Bytes() < got.Unpacked {
			t.Errorf("%s: %d bytes", c.name, got.Bytes())
		}
	}
}

func TestMissing(t *testing.T) {
	room := func(total, available int64) store.Room {
		return store.Room{TotalBytes: total, AvailableBytes: available, TotalFiles: 100_000, FreeFiles: 50_000}
	}
	for _, c := range []struct {
		name         string
		need         Need
		room         store.Room
		bytes, files int64
	}{
		{"nothing to pull", Need{}, room(1000*mib, 0), 0, 0},
		{"just fits", Need{Unpacked: 36 * mib}, room(1000*mib, 100*mib), 0, 0},
		{"not with the reserve", Need{Unpacked: 37 * mib}, room(1000*mib, 100*mib), mib, 0},
		{"a larger disk keeps more", Need{Unpacked: mib}, room(10_000*mib, 100*mib), 101 * mib, 0},
		{"but not without bounds", Need{Unpacked: mib}, room(1<<50, 1<<30+mib), 0, 0},
		{"both at once", Need{Download: 30 * mib, Unpacked: 30 * mib}, room(1000*mib, 100*mib), 24 * mib, 0},
		{"more than can be counted", Need{Download: math.MaxInt64, Unpacked: 1}, room(1000*mib, 100*mib), math.MaxInt64 - 100*mib, 0},
		{"inodes", Need{Unpacked: mib, Files: 49_001}, room(1000*mib, 100*mib), 0, 1},
		{"no limit of inodes", Need{Unpacked: mib, Files: 1 << 40}, store.Room{TotalBytes: 1000 * mib, AvailableBytes: 100 * mib}, 0, 0},
	} {
		if bytes, files := Missing(c.need, c.room); bytes != c.bytes || files != c.files {
			t.Errorf("%s: %d bytes and %d files, want %d and %d", c.name, bytes, files, c.bytes, c.files)
		}
	}
}

// TestPreflight refuses before anything is written, with what is missing and what a collection would free.
func TestPreflight(t *testing.T) {
	dir := t.TempDir()
	history(t, dir, 6)
	st := openStore(t, dir, store.Options{ReadOnly: true})
	pull := func(size int64) []Pull {
		return []Pull{{Name: "nginx", Layers: []store.Layer{{MediaType: zstd, Digest: "sha256:" + strings.Repeat("ab", 32), Size: size}}}}
	}
	o := Options{Now: today}
	for _, pulls := range [][]Pull{nil, pull(1000)} {
		if err := Preflight(t.Context(), st, pulls, o); err != nil {
			t.Errorf("%+v: %v", pulls, err)
		}
	}
	before := listing(t, dir)
	err := Preflight(t.Context(), st, pull(1<<50), o)
	if fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Mount || !strings.HasPrefix(err.Error(), "pull nginx: that may take ") || !strings.Contains(err.Error(), "are missing") {
		t.Errorf("%v", err)
	}
	if hint := fault.HintOf(err); !strings.HasPrefix(hint, "run powernode-agent gc, which frees 1 MiB; that isn't enough: free space on "+dir) {
		t.Errorf("hint %q", hint)
	}
	if err := Preflight(t.Context(), st, append(pull(1<<50), pull(1)...), o); err == nil || !strings.Contains(err.Error(), "pull 2 modules") {
		t.Errorf("%v", err)
	}
	if after := listing(t, dir); len(after) != len(before) {
		t.Errorf("%d files, then %d", len(before), len(after))
	}
	// A collection that would refuse is no help.
	if err := os.WriteFile(filepath.Join(dir, "generations", "current"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if hint := fault.HintOf(Preflight(t.Context(), st, pull(1<<50), o)); hint != "free space on "+dir {
		t.Errorf("hint %q", hint)
	}
}

// TestPreflightKnowsWhatIsHere: layers of other modules and downloads that were begun count.
func TestPreflightKnowsWhatIsHere(t *testing.T) {
	dir := t.TempDir()
	history(t, dir, 1)
	st := openStore(t, dir, store.Options{})
	known := version{name: "base", version: "1"}.record().Layers[0]
	begun := store.Layer{MediaType: zstd, Digest: "sha256:" + strings.Repeat("cd", 32), Size: mib}
	p, err := st.Partial(begun.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write(make([]byte, mib/2)); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	here, err := hereIn(st)
	if err != nil || !here.Modules["app"] {
		t.Errorf("%+v, %v", here, err)
	}
	need := NeedOf([]Pull{{Layers: []store.Layer{known, begun}}}, here)
	if need.Unpacked != 4*mib || need.Download != known.Size+mib/2 {
		t.Errorf("%+v", need)
	}
}
