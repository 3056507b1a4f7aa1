package reconcile

import (
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
	if _, err := Lock(dir); fault.KindOf(err) != fault.Retry || !strings.Contains(err.Error(), "only one change at a time") {
		t.Errorf("error %v", err)
	}
	lock.Unlock()
	again, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Unlock()
}
