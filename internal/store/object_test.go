package store

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

func TestObjects(t *testing.T) {
	s := openStore(t, t.TempDir())
	for _, size := range []int{0, 1, 64, 4096, 4097, bufferMax - 1, bufferMax, bufferMax + 1, 3*bufferMax + 5} {
		data := content(fmt.Sprint(size), size)
		want := fsverity.SumBytes(data)
		for i, hint := range []int64{0, -1, int64(size), int64(size) + 1, 5 * bufferMax} {
			w, err := s.NewDualObject(hint)
			if err != nil {
				t.Fatal(err)
			}
			switch i % 3 {
			case 0:
				_, err = w.Write(data)
			case 1:
				_, err = w.ReadFrom(bytes.NewReader(data))
			case 2:
				_, err = io.Copy(w, iotest.HalfReader(bytes.NewReader(data)))
			}
			if err != nil || w.Size() != uint64(size) {
				t.Fatalf("write %d bytes: size %d, %v", size, w.Size(), err)
			}
			d, fresh, err := w.Commit()
			if d != want || fresh != (i == 0) || err != nil {
				t.Errorf("commit %d bytes, hint %d: %s, new %v, %v; want %s", size, hint, d, fresh, err, want)
			}
			if w.SHA256() != sha256.Sum256(data) || w.Size() != uint64(size) {
				t.Errorf("%d bytes: plain SHA-256 or size after commit is wrong", size)
			}
			w.Abort()
			if _, err := w.Write(nil); err == nil {
				t.Error("wrote after commit")
			}
			if _, _, err := w.Commit(); err == nil {
				t.Error("committed twice")
			}
		}
		f, err := s.OpenObject(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		info, _ := f.Stat()
		f.Close()
		if err != nil || !bytes.Equal(got, data) || info.Mode() != objectPerm {
			t.Errorf("read back %d of %d bytes, mode %v, %v", len(got), size, info.Mode(), err)
		}
		if err := s.VerifyObject(want); err != nil {
			t.Error(err)
		}
	}
}

func TestAbortLeavesNothing(t *testing.T) {
	s := openStore(t, t.TempDir())
	for _, size := range []int{0, 10, 2 * bufferMax} {
		w, err := s.NewObject(int64(size))
		if err != nil {
			t.Fatal(err)
		}
		w.Write(content("x", size))
		w.Abort()
		w.Abort()
	}
	if left := files(t, s.ObjectsPath()); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	if left := files(t, s.unsynced.Path()); len(left) > 0 {
		t.Errorf("marked as unsynced: %q", left)
	}
}

// TestSameObjectsAtOnce has several goroutines store the same contents, and sync meanwhile.
func TestSameObjectsAtOnce(t *testing.T) {
	s := openStore(t, t.TempDir())
	const goroutines, count = 8, 200
	var wg sync.WaitGroup
	var mu sync.Mutex
	fresh := make(map[fsverity.Digest]int)
	for g := range goroutines {
		wg.Go(func() {
			for i := range count {
				data := content(fmt.Sprint((i+g*25)%count), 200+i)
				data = data[:200]
				w, err := s.NewObject(0)
				if err != nil {
					t.Error(err)
					return
				}
				w.Write(data)
				d, isNew, err := w.Commit()
				if err != nil {
					t.Error(err)
					return
				}
				if isNew {
					mu.Lock()
					fresh[d]++
					mu.Unlock()
				}
				if i%50 == 0 {
					if err := s.Sync(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if len(fresh) != count {
		t.Errorf("%d objects were new, want %d", len(fresh), count)
	}
	for d, n := range fresh {
		if n != 1 {
			t.Errorf("%s was new %d times", d, n)
		}
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	if left := files(t, s.unsynced.Path()); len(left) > 0 {
		t.Errorf("still marked as unsynced: %q", left)
	}
	checkWhole(t, s)
}

// objectFile returns where an object lies.
func objectFile(s *Store, d fsverity.Digest) string {
	s.naming.wait(d)
	return filepath.Join(s.ObjectsPath(), d.ObjectPath())
}

// damage replaces an object's bytes, whatever its mode.
func damage(t testing.TB, s *Store, d fsverity.Digest, data []byte) {
	t.Helper()
	if err := errors.Join(os.Remove(objectFile(s, d)), os.WriteFile(objectFile(s, d), data, objectPerm)); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyNamesTheDamagedObject(t *testing.T) {
	s := openStore(t, t.TempDir())
	var all []fsverity.Digest
	for i := range 20 {
		all = append(all, put(t, s, content(fmt.Sprint(i), 10_000)))
	}
	done, err := s.VerifyObjects(t.Context(), all)
	if err != nil || done.Hashed+done.Enforced != 20 || done.Bytes != done.Hashed*10_000 {
		t.Errorf("%+v, %v", done, err)
	}
	bad := all[13]
	flipped := content("13", 10_000)
	flipped[5000] ^= 1
	for name, data := range map[string][]byte{"flipped": flipped, "short": flipped[:9999], "empty": {}} {
		damage(t, s, bad, data)
		for _, err := range []error{s.VerifyObject(bad), second(s.VerifyObjects(t.Context(), all))} {
			if err == nil || fault.KindOf(err) != fault.Broken || fault.AreaOf(err) != fault.Verify || !bytes.Contains([]byte(err.Error()), []byte(bad.String())) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if err := s.RemoveObject(bad); err != nil {
		t.Fatal(err)
	}
	if err := s.VerifyObject(bad); !errors.Is(err, fs.ErrNotExist) || fault.KindOf(err) != fault.Broken {
		t.Errorf("a missing object: %v", err)
	}
	if d := put(t, s, content("13", 10_000)); d != bad || s.VerifyObject(bad) != nil {
		t.Error("a removed object didn't come back")
	}
}

func second[A, B any](_ A, b B) B { return b }

// TestTornObjectIsReplaced: an object of the wrong size is what a power cut leaves.
func TestTornObjectIsReplaced(t *testing.T) {
	s := openStore(t, t.TempDir())
	data := content("torn", 9000)
	d := put(t, s, data)
	for name, spoil := range map[string]func(path string) error{
		"empty":     func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"short":     func(path string) error { return os.WriteFile(path, data[:4096], 0o600) },
		"a symlink": func(path string) error { return os.Symlink("/etc/passwd", path) },
		"a FIFO":    func(path string) error { return unix.Mkfifo(path, 0o600) },
	} {
		if err := errors.Join(os.Remove(objectFile(s, d)), spoil(objectFile(s, d))); err != nil {
			t.Fatal(err)
		}
		if err := s.VerifyObject(d); err == nil {
			t.Errorf("%s: verified", name)
		}
		if got := put(t, s, data); got != d || s.VerifyObject(d) != nil {
			t.Errorf("%s: wasn't replaced: %v", name, s.VerifyObject(d))
		}
	}
}

func TestObjectsIgnoresWhatIsNotOurs(t *testing.T) {
	s := openStore(t, t.TempDir())
	d := put(t, s, []byte("x"))
	s.naming.waitAll()
	dir := s.ObjectsPath()
	for _, err := range []error{
		os.WriteFile(filepath.Join(dir, "file"), nil, 0o600),
		os.WriteFile(filepath.Join(dir, "ab"), nil, 0o600),
		os.WriteFile(filepath.Join(dir, d.String()[:2], "short"), nil, 0o600),
		os.Mkdir(filepath.Join(dir, "lost+found"), 0o700),
		os.Mkdir(filepath.Join(dir, "zz"), 0o700),
		os.Symlink("/etc", filepath.Join(dir, "cd")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var got []fsverity.Digest
	for d, err := range s.Objects() {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, d)
	}
	if len(got) != 1 || got[0] != d {
		t.Errorf("%v", got)
	}
}

func TestAddFile(t *testing.T) {
	s := openStore(t, t.TempDir())
	for _, size := range []int{0, 100, bufferMax, 2*bufferMax + 1} {
		data := content("file", size)
		name := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		d, n, err := s.AddFile(f)
		f.Close()
		if d != fsverity.SumBytes(data) || n != uint64(size) || err != nil || s.VerifyObject(d) != nil {
			t.Errorf("%d bytes: %s, %d, %v", size, d, n, err)
		}
	}
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, _, err := s.AddFile(dir); err == nil {
		t.Error("added a directory")
	}
	w, err := s.NewObject(0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	for range 2 {
		if _, err := w.ReadFrom(iotest.ErrReader(io.ErrClosedPipe)); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("a broken reader: %v", err)
		}
	}
}

func BenchmarkObjects(b *testing.B) {
	for _, size := range []int{1000, 16_000, 8 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := openStore(b, b.TempDir())
			data := content("", size)
			b.SetBytes(int64(size))
			for i := 0; b.Loop(); i++ {
				copy(data, fmt.Sprintf("%016d", i))
				put(b, s, data)
			}
		})
	}
	b.Run("known", func(b *testing.B) {
		s := openStore(b, b.TempDir())
		data := content("", 16_000)
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			put(b, s, data)
		}
	})
}

// Bytes whose digest is known are an object like any other, and a generation of them needs no other sync.
func TestAddBytes(t *testing.T) {
	var ops []string
	s, err := Open(t.TempDir(), Options{Hook: func(op string) error {
		ops = append(ops, op)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, size := range []int{100, 3 << 20} {
		data := content("x", size)
		d := fsverity.SumBytes(data)
		for _, want := range []bool{true, false} {
			if fresh, err := s.AddBytes(data, d); err != nil || fresh != want {
				t.Fatalf("%d bytes: new %v, %v", size, fresh, err)
			}
			if err := s.Sync(); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.VerifyObject(d); err != nil {
			t.Error(err)
		}
	}
	image := content("y", 5000)
	root := fsverity.SumBytes(image)
	if _, err := s.AddBytes(image, root); err != nil {
		t.Fatal(err)
	}
	ops = nil
	if err := s.SyncObject(root); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutGeneration(Generation{RootDigest: root}, nil); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(ops, "sync:fsync") || slices.Contains(ops, "sync:syncfs") {
		t.Errorf("%q", ops)
	}
	if err := s.RemoveObject(root); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutGeneration(Generation{RootDigest: root}, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a generation whose image is gone: %v", err)
	}
}
