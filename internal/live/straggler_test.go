package live

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/mount"
)

// TestMountsOfTheLastMoment are made inside of the old tree when the others were carried over: they go along, and are mounted once.
func TestMountsOfTheLastMoment(t *testing.T) {
	for _, at := range []string{"live-usr:beneath", "live-usr:attach", "live-usr:detach"} {
		t.Run(at, func(t *testing.T) {
			n := newNode(t)
			files := func(version string) Side {
				f := versionFiles(version)
				f["usr/early/"], f["usr/late/place/"] = "", ""
				return n.files(f)
			}
			a, b := files("a"), files("b")
			n.boot(a, nil)
			other := t.TempDir()
			must(t, os.MkdirAll(other+"/inner", 0o755))
			must(t, os.WriteFile(other+"/file", []byte("bound"), 0o644))
			must(t, unix.Mount("early", n.in("usr/early"), "tmpfs", 0, ""))
			from, to := a, b
			if !strings.Contains(at, "attach") {
				n.swap(a, b)
				from, to = b, a
			}
			done := false
			spec := n.spec(from, to)
			spec.Hook = func(label string) error {
				if label != at || done {
					return nil
				}
				done = true
				must(t, unix.Mount(other, n.in("usr/late/place"), "", unix.MS_BIND, ""))
				must(t, unix.Mount("inner", n.in("usr/late/place/inner"), "tmpfs", 0, ""))
				n.write("usr/late/place/inner/file", "inner")
				return nil
			}
			_, err := Swap(t.Context(), spec)
			must(t, err)
			must(t, Finish(n.run, nil))
			n.whole(to)
			if !done {
				t.Fatal("there is no such step")
			}
			n.wantContent(map[string]string{"usr/late/place/file": "bound", "usr/late/place/inner/file": "inner"})
			table, err := mount.ReadTable()
			must(t, err)
			for _, point := range []string{"usr/early", "usr/late/place", "usr/late/place/inner"} {
				count := 0
				for _, e := range table {
					if e.Point == n.in(point) {
						count++
					}
				}
				if count != 1 {
					t.Errorf("%d mounts at %s", count, point)
				}
			}
		})
	}
}
