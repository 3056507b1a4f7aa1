package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// What programs made out of one root image doesn't hide what another one brings, and what was changed by hand stays. Under the
// same image nothing is dropped.
func TestDerivedGoesWithItsImage(t *testing.T) {
	for name, policy := range map[string]func(*Spec){
		"a writable layer on the disk": func(s *Spec) { s.Upper.Kind = OnPersist },
		"a persistent etc":             func(s *Spec) { s.Etc = Persistent },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			one := n.image(map[string]string{"etc/base": "1", "usr/lib/x": "1"})
			two := n.image(map[string]string{"etc/base": "1", "etc/cache": "the image's", "usr/lib/x": "2"})
			spec := func(s *Spec) {
				policy(s)
				s.Derived = func(path string) bool { return path == "/etc/cache" || path == "/etc/none" }
			}
			n.goneLive(two, one) // so that boots of both use one layer
			r := n.boot(one, spec)
			r.write("etc/cache", "of one")
			r.write("etc/mine", "mine")
			r.shutDown()
			r = n.boot(one, spec)
			if got := r.read("etc/cache"); got != "of one" {
				t.Errorf("under the same image: %q", got)
			}
			upper := filepath.Join(r.Facts().UpperDir, "etc")
			if r.Facts().Etc == Persistent {
				upper = EtcUpper(n.store.Path())
			}
			r.shutDown()

			r = n.boot(two, spec)
			if got := r.read("etc/cache"); got != "the image's" {
				t.Errorf("under another image: %q; remarks %q", got, n.remarks)
			}
			if got := r.read("etc/mine"); got != "mine" {
				t.Errorf("what was changed by hand: %q; remarks %q", got, n.remarks)
			}
			if _, err := os.Lstat(filepath.Join(upper, "cache")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the layer has it still: %v", err)
			}
			r.shutDown()
		})
	}
}
