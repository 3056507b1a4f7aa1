package live

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/mount/mounttest"
)

// TestWorksAreRemovedWhateverThePath: the path of the writable layer has what a pattern of names would take for something else.
func TestWorksAreRemovedWhateverThePath(t *testing.T) {
	mounttest.NeedMounts(t)
	dir := filepath.Join(t.TempDir(), "a[b]c*d?")
	must(t, os.MkdirAll(dir, 0o700))
	n := nodeIn(t, dir)
	a, b := n.files(map[string]string{"usr/x": "a"}), n.files(map[string]string{"usr/x": "b"})
	n.boot(a, nil)
	for range worksMax {
		n.swap(a, b)
		n.swap(b, a)
	}
	state, err := Mounted(n.root)
	must(t, err)
	entries, err := os.ReadDir(filepath.Dir(state.Base.Upper))
	must(t, err)
	works := 0
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), workPrefix) {
			works++
		}
	}
	if works > worksMax+1 {
		t.Errorf("%d work directories are left", works)
	}
}
