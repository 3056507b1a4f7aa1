package store

import (
	"bytes"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

func TestGenerations(t *testing.T) {
	s := openStore(t, t.TempDir())
	x := makeSample("nginx", 0)
	root := content("root", 10_000)
	if _, err := s.PutGeneration(x.generation(root), bytes.NewReader(root)); fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), "nginx") {
		t.Errorf("with a module that isn't here: %v", err)
	}
	if err := x.put(s); err != nil {
		t.Fatal(err)
	}
	g := x.generation(root)
	if _, err := s.PutGeneration(g, bytes.NewReader(root[1:])); fault.AreaOf(err) != fault.Verify {
		t.Errorf("with another image: %v", err)
	}
	if _, err := s.PutGeneration(Generation{}, nil); err == nil {
		t.Error("without a root digest")
	}
	if _, err := s.PutGeneration(Generation{RootDigest: fsverity.Digest{1}}, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without an image: %v", err)
	}
	for want := uint64(1); want <= 11; want++ {
		n, err := s.PutGeneration(g, bytes.NewReader(root))
		if n != want || err != nil {
			t.Fatalf("number %d, %v, want %d", n, err, want)
		}
	}
	g.Number = 7
	got, err := s.Generation(7)
	if diff := cmp.Diff(g, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	all, err := s.Generations()
	if err != nil || len(all) != 11 || all[1].Number != 2 || all[10].Number != 11 {
		t.Errorf("%d generations, %v", len(all), err)
	}
	if _, err := s.Generation(12); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("one that isn't here: %v", err)
	}
	f, err := s.OpenRootImage(g.RootDigest)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// TestNumbersAtOnce: two handles never give out the same number.
func TestNumbersAtOnce(t *testing.T) {
	dir := t.TempDir()
	root := []byte("root")
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := make(map[uint64]bool)
	for range 4 {
		s := openStore(t, dir)
		wg.Go(func() {
			for range 5 {
				n, err := s.PutGeneration(Generation{RootDigest: fsverity.SumBytes(root)}, bytes.NewReader(root))
				mu.Lock()
				if err != nil || seen[n] {
					t.Errorf("number %d again, or %v", n, err)
				}
				seen[n] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != 20 || !seen[20] {
		t.Errorf("numbers %v", seen)
	}
}

func TestPointers(t *testing.T) {
	s := openStore(t, t.TempDir())
	root := []byte("root")
	for range 4 {
		if _, err := s.PutGeneration(Generation{RootDigest: fsverity.SumBytes(root)}, bytes.NewReader(root)); err != nil {
			t.Fatal(err)
		}
	}
	want := func(current, previous, staged uint64) {
		t.Helper()
		for name, n := range map[PointerName]uint64{Current: current, Previous: previous, Staged: staged} {
			if got, err := s.Pointer(name); got != n || err != nil {
				t.Errorf("%s is %d, %v; want %d", name, got, err, n)
			}
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	want(0, 0, 0)
	must(s.Promote(1))
	want(1, 0, 0)
	must(s.SetPointer("staged", 2))
	want(1, 0, 2)
	must(s.Promote(2))
	want(2, 1, 0)
	must(s.Promote(2))
	want(2, 1, 0)
	must(s.SetPointer(Staged, 3))
	must(s.Promote(1))
	want(1, 2, 3)
	must(s.SetPointer(Staged, 0))
	must(s.SetPointer(Staged, 0))
	want(1, 2, 0)
	if err := s.SetPointer(Current, 9); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("to a generation that isn't here: %v", err)
	}
	for _, name := range []PointerName{"", "1.json", "../x", "good"} {
		if err := s.SetPointer(name, 1); err == nil {
			t.Errorf("set %q", name)
		}
		if _, err := s.Pointer(name); err == nil {
			t.Errorf("read %q", name)
		}
	}
	want(1, 2, 0)

	for _, n := range []uint64{0, 1, 2, 4} {
		if err := s.RemoveGeneration(n); err == nil {
			t.Errorf("removed generation %d", n)
		}
	}
	must(s.RemoveGeneration(3))
	if n, err := s.PutGeneration(Generation{RootDigest: fsverity.SumBytes(root)}, nil); n != 5 || err != nil {
		t.Errorf("next number %d, %v", n, err)
	}
}

func TestNumberAfterTheLast(t *testing.T) {
	s := openStore(t, t.TempDir())
	name := filepath.Join(s.generations.Path(), generationFile(math.MaxUint64))
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	root := []byte("root")
	if _, err := s.PutGeneration(Generation{RootDigest: fsverity.SumBytes(root)}, bytes.NewReader(root)); fault.KindOf(err) != fault.Broken || !strings.Contains(err.Error(), name) {
		t.Errorf("%v", err)
	}
}

func FuzzParsePointer(f *testing.F) {
	for _, s := range []string{"", "0", "1", "7\n", "07", "+7", "-1", "18446744073709551615", "18446744073709551616", "7\n\n", " 7"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := parsePointer(data)
		if err == nil && (n == 0 || string(formatPointer(n)) != strings.TrimSuffix(string(data), "\n")) {
			t.Errorf("%q became %d", data, n)
		}
		if n, ok := parseGenerationFile(string(data)); ok && generationFile(n) != string(data) {
			t.Errorf("%q became generation %d", data, n)
		}
	})
}
