package mount

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/mount/mounttest"
	"github.com/powernode/powernode-agent/internal/oracle"
)

func TestMain(m *testing.M) { os.Exit(mounttest.Main(m)) }

// big is content that is too long to lie in an image.
var big = strings.Repeat("powernode ", 1000)

// sealed is a root image with its objects and ways to mount it.
type sealed struct{ mounttest.Image }

// seal makes an image of files in dir.
func seal(t testing.TB, dir string, files map[string]string) sealed {
	t.Helper()
	return sealed{mounttest.Seal(t, oracle.Path(t, "mkcomposefs"), dir, files)}
}

// spec opens everything that a read-only union needs. It skips the test on a kernel that Decide
// refuses.
func (s sealed) spec(t testing.TB) UnionSpec {
	t.Helper()
	if err := probeOverlay(); err != nil {
		oracle.Missing(t, err.Error())
	}
	return UnionSpec{
		Image: open(t, s.Path), Digest: s.Digest, Objects: open(t, s.Objects), Level: Checked,
	}
}

// writable adds an upper in dir.
func (s sealed) writable(t testing.TB, dir string) UnionSpec {
	t.Helper()
	spec := s.spec(t)
	must(t, os.MkdirAll(filepath.Join(dir, "upper"), 0o755))
	must(t, os.MkdirAll(filepath.Join(dir, "work"), 0o755))
	spec.Upper, spec.Work = open(t, filepath.Join(dir, "upper")), open(t, filepath.Join(dir, "work"))
	return spec
}

func open(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// tmpfs mounts a tmpfs of its own, on which EROFS can't read images from files.
func tmpfs(t testing.TB) string {
	t.Helper()
	m, err := New("tmpfs", 0, String("mode", "755"))
	must(t, err)
	return attached(t, m)
}

// attached attaches m somewhere until the end of the test.
func attached(t testing.TB, m *Mount) string {
	t.Helper()
	defer m.Close()
	dir := t.TempDir()
	must(t, m.Attach(dir))
	t.Cleanup(func() {
		f, err := openPath(dir)
		must(t, err)
		defer f.Close()
		if _, isRoot, err := identify(f); err == nil && isRoot {
			must(t, Detach(f))
		}
	})
	return dir
}

func read(t testing.TB, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	must(t, err)
	return string(b)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
