package store

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
)

// verityStore opens a store whose kernel and filesystem have fs-verity, or skips the test.
func verityStore(t *testing.T) *Store {
	s := openStore(t, t.TempDir())
	if err := s.Verity(); err != nil {
		t.Skipf("no fs-verity here: %v", err)
	}
	return s
}

func TestVerityIsEnabled(t *testing.T) {
	s := verityStore(t)
	x := makeSample("nginx", 0)
	if err := x.put(s); err != nil {
		t.Fatal(err)
	}
	root := content("root", 3*bufferMax)
	if _, err := s.PutGeneration(x.generation(root), bytes.NewReader(root)); err != nil {
		t.Fatal(err)
	}
	all := append(x.module.Objects, x.module.Seal, fsverity.SumBytes(root))
	done, err := s.VerifyObjects(t.Context(), all)
	if err != nil || done != (Verified{Enforced: int64(len(all))}) {
		t.Errorf("%+v, %v", done, err)
	}
	for _, d := range all {
		if _, err := os.OpenFile(objectFile(s, d), os.O_WRONLY, 0); !errors.Is(err, unix.EPERM) {
			t.Errorf("open %s for writing: %v", d, err)
		}
	}
	checkWhole(t, s)
}

// TestVerityComesLater: objects from a time without fs-verity get it with the next module.
func TestVerityComesLater(t *testing.T) {
	s := verityStore(t)
	none := fsverity.ErrNotSupported
	s.verity.Store(&none)
	x := makeSample("nginx", 0)
	if err := x.put(s); err != nil {
		t.Fatal(err)
	}
	s.verity.Store(nil)
	all := append(x.module.Objects, x.module.Seal)
	if done, err := s.VerifyObjects(t.Context(), all); err != nil || done.Enforced != 0 {
		t.Errorf("%+v, %v", done, err)
	}
	if err := s.PutModule(x.module, nil); err != nil {
		t.Fatal(err)
	}
	if done, err := s.VerifyObjects(t.Context(), all); err != nil || done.Hashed != 0 {
		t.Errorf("%+v, %v", done, err)
	}
}

// TestVerityOfDamagedObject: the kernel would enforce the wrong bytes as well.
func TestVerityOfDamagedObject(t *testing.T) {
	s := verityStore(t)
	d := put(t, s, content("x", 5000))
	damage(t, s, d, content("y", 5000))
	for range 2 {
		if err := s.EnableVerity(t.Context(), []fsverity.Digest{d}); fault.KindOf(err) != fault.Broken || fault.AreaOf(err) != fault.Verify {
			t.Errorf("enable: %v", err)
		}
		if err := s.VerifyObject(d); fault.KindOf(err) != fault.Broken {
			t.Errorf("verify: %v", err)
		}
	}
}

func TestWithoutVerity(t *testing.T) {
	s := openStore(t, t.TempDir())
	none := fsverity.ErrNotBuiltIn
	s.verity.Store(&none)
	d := put(t, s, content("x", 5000))
	if err := s.Sync(); err != nil {
		t.Errorf("sync: %v", err)
	}
	if err := s.EnableVerity(t.Context(), []fsverity.Digest{d}); !errors.Is(err, fsverity.ErrNotBuiltIn) {
		t.Errorf("enable: %v", err)
	}
	if done, err := s.VerifyObjects(t.Context(), []fsverity.Digest{d}); err != nil || done != (Verified{Hashed: 1, Bytes: 5000}) {
		t.Errorf("%+v, %v", done, err)
	}
}
