package reconcile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fault"
)

// TestHealHoldsTheRootToItsModules: nothing runs because an unsigned record names it.
func TestHealHoldsTheRootToItsModules(t *testing.T) {
	w := newWorld(t)
	w.module("base", "1", map[string]string{"usr/a": long("a")})
	g := w.boot()
	if mended, err := w.reconciler().Heal(t.Context(), g); err != nil || len(mended) != 0 {
		t.Errorf("what is whole: %v, %v", mended, err)
	}
	g.RootDigest[0] ^= 1
	if _, err := w.reconciler().Heal(t.Context(), g); fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Verify || !strings.Contains(err.Error(), "its modules give") {
		t.Errorf("another root: %v", err)
	}
}

// TestLockSaysWhoHasIt.
func TestLockSaysWhoHasIt(t *testing.T) {
	dir := t.TempDir()
	lock, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(dir); fault.KindOf(err) != fault.Retry || !strings.Contains(err.Error(), "only one change at a time") || !strings.Contains(err.Error(), "("+filepath.Base(os.Args[0])) {
		t.Errorf("error %v", err)
	}
	lock.Unlock()
	again, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Unlock()
}

// TestLockTakesNobodyElsesWord: what an earlier holder wrote isn't said of this one.
func TestLockTakesNobodyElsesWord(t *testing.T) {
	dir := t.TempDir()
	lock, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	for _, text := range []string{"1 another", "", "rubbish", strings.Repeat("x", 10*signatureMax)} {
		if err := os.WriteFile(filepath.Join(dir, LockName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Lock(dir); err == nil || strings.Contains(err.Error(), "(") {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}
