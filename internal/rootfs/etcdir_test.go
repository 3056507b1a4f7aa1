package rootfs

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// TestEtcDirectories: local changes to /etc over another image, which has a directory where one was made here, and has
// others of what was changed, renamed and removed.
func TestEtcDirectories(t *testing.T) {
	n := newNode(t)
	files := func(v string, more ...string) map[string]string {
		f := map[string]string{"etc/mode": big + v, "etc/dir/f": v, "etc/dir/gone": v, "etc/away/f": v, "etc/w": v}
		for _, name := range more {
			f[name] = v
		}
		return f
	}
	one, two := n.image(files("1")), n.image(files("2", "etc/new.d/image", "etc/new.d/sub/image", "etc/again/image"))
	persistent := func(s *Spec) { s.Etc = Persistent }
	r := n.boot(one, persistent)
	must(t, errors.Join(
		os.Chmod(r.in("etc/mode"), 0o600), os.Remove(r.in("etc/dir/gone")), os.RemoveAll(r.in("etc/away")), os.Mkdir(r.in("etc/away"), 0o755),
		os.MkdirAll(r.in("etc/new.d/sub"), 0o755),
	))
	if err := os.Rename(r.in("etc/dir"), r.in("etc/renamed")); err == nil {
		t.Error("a directory of the image was renamed")
	}
	r.write("etc/w", "mine")
	r.write("etc/new.d/local", "mine")
	r.write("etc/new.d/sub/local", "mine")
	r.write("etc/away/local", "mine")
	r.shutDown()

	for range 2 {
		r = n.boot(two, persistent)
		for path, want := range map[string]string{
			"etc/mode": big + "1", "etc/w": "mine", "etc/dir/f": "2", "etc/dir/gone": "error", "etc/away/f": "error", "etc/away/local": "mine",
			"etc/new.d/local": "mine", "etc/new.d/image": "2", "etc/new.d/sub/local": "mine", "etc/new.d/sub/image": "2", "etc/again/image": "2",
		} {
			if got := r.read(path); got != want && (want != "error" || !strings.HasPrefix(got, want)) {
				t.Errorf("%s reads %.40q, want %.40q", path, got, want)
			}
		}
		r.shutDown()
	}
}
