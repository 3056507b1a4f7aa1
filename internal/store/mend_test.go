package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/durable/durabletest"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

// replace writes data as an object that takes the place of what is there.
func replace(s *Store, data []byte) (fsverity.Digest, error) {
	w, err := s.NewObject(int64(len(data)))
	if err != nil {
		return fsverity.Digest{}, err
	}
	defer w.Abort()
	if _, err := w.Write(data); err != nil {
		return fsverity.Digest{}, err
	}
	return w.Replace()
}

// TestReplace: whatever has an object's name gives way to the object, and who has the old file
// open goes on reading it.
func TestReplace(t *testing.T) {
	for _, size := range []int{10, 9000, 2 * bufferMax} {
		s := openStore(t, t.TempDir())
		data := content("good", size)
		d := put(t, s, data)
		if err := s.Sync(); err != nil {
			t.Fatal(err)
		}
		for name, spoil := range map[string]func(path string) error{
			"other bytes": func(path string) error { return os.WriteFile(path, content("bad", size), 0o400) },
			"nothing":     func(string) error { return nil },
			"a directory": func(path string) error { return os.MkdirAll(path+"/x", 0o700) },
			"a link":      func(path string) error { return os.Symlink("/etc/passwd", path) },
		} {
			if err := errors.Join(os.RemoveAll(objectFile(s, d)), spoil(objectFile(s, d))); err != nil {
				t.Fatal(err)
			}
			old, _ := os.Open(objectFile(s, d))
			got, err := replace(s, data)
			if err != nil || got != d || s.VerifyObject(d) != nil {
				t.Fatalf("%d bytes, %s: %s, %v, then %v", size, name, got, err, s.VerifyObject(d))
			}
			if name == "other bytes" {
				if bad, err := io.ReadAll(old); err != nil || fsverity.SumBytes(bad) == d {
					t.Errorf("the open file changed: %v", err)
				}
			}
			old.Close()
		}
		checkWhole(t, s)
		if names, _ := s.objects.Names(); len(names) != 1 {
			t.Errorf("left in the objects: %v", names)
		}
	}
}

// TestDamagedNamesAll of them, and no other.
func TestDamagedNamesAll(t *testing.T) {
	s := openStore(t, t.TempDir())
	var all []fsverity.Digest
	for i := range 20 {
		all = append(all, put(t, s, content(fmt.Sprint(i), 10_000)))
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	damage(t, s, all[3], []byte("x"))
	damage(t, s, all[17], content("other", 10_000))
	if err := os.Remove(objectFile(s, all[5])); err != nil {
		t.Fatal(err)
	}
	for _, deep := range []bool{false, true} {
		bad, err := s.Damaged(t.Context(), all, deep)
		if err != nil || len(bad) != 3 || bad[all[3]] == nil || bad[all[5]] == nil || bad[all[17]] == nil {
			t.Errorf("deep %t: %v, %v", deep, bad, err)
		}
	}
}

// TestReplaceSurvives a failure, a kill and a power cut at every operation on the disk: the name
// always has a file, the old one or the good one, and once more makes it good.
func TestReplaceSurvives(t *testing.T) {
	data := content("good", 5000)
	d := fsverity.SumBytes(data)
	mend := durabletest.Scenario{
		Setup: func(t testing.TB, dir string) {
			s := openStore(t, dir)
			put(t, s, data)
			if err := s.Sync(); err != nil {
				t.Fatal(err)
			}
			damage(t, s, d, []byte("bad"))
			if err := errors.Join(s.objects.SyncFS("test"), s.Close()); err != nil {
				t.Fatal(err)
			}
		},
		Run: func(dir string, hook durable.Hook) error {
			s, err := Open(dir, Options{Hook: hook})
			if err != nil {
				return err
			}
			_, err = replace(s, data)
			return errors.Join(err, s.Close())
		},
		Check: func(t testing.TB, dir, op string, _ error) {
			s := openStore(t, dir)
			defer s.Close()
			if op == "" && s.VerifyObject(d) != nil {
				t.Error("replaced, and still bad")
			}
			if !s.HasObject(d) {
				t.Error("the name is gone")
			}
			if names, _ := s.objects.Names(); len(names) != 1 {
				t.Errorf("left: %v", names)
			}
			if _, err := replace(s, data); err != nil || s.VerifyObject(d) != nil {
				t.Errorf("once more: %v, %v", err, s.VerifyObject(d))
			}
		},
	}
	t.Run("ENOSPC", func(t *testing.T) { mend.FailEach(t, unix.ENOSPC) })
	t.Run("kill", mend.KillEach)
	t.Run("power cut", mend.PowerCutEach)
}
