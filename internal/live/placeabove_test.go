package live

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/rootfs"
)

// TestWhatIsMadeBesideASubmount, for the first time in that directory and when the new union has looked at it, isn't lost.
func TestWhatIsMadeBesideASubmount(t *testing.T) {
	for name, etc := range map[string]rootfs.Etc{"ephemeral": rootfs.Ephemeral, "persistent": rootfs.Persistent} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			files := func(version string) Side {
				f := versionFiles(version)
				f["usr/deep/er/place/"], f["etc/deep/er/place/"] = "", ""
				return n.files(f)
			}
			a, b := files("a"), files("b")
			n.boot(a, func(s *rootfs.Spec) { s.Etc = etc })
			must(t, errors.Join(unix.Mount("sub", n.in("usr/deep/er/place"), "tmpfs", 0, ""), unix.Mount("sub", n.in("etc/deep/er/place"), "tmpfs", 0, "")))
			made := false
			spec := n.spec(a, b)
			spec.Hook = func(label string) error {
				if label == "live-scratch:unmount" && !made {
					made = true
					n.write("usr/deep/er/file", "mine")
					n.write("etc/deep/er/file", "mine")
				}
				return nil
			}
			_, err := Swap(t.Context(), spec)
			must(t, errors.Join(err, Finish(n.run, nil)))
			n.whole(b)
			n.wantContent(map[string]string{"usr/deep/er/file": "mine", "etc/deep/er/file": "mine"})
			n.write("usr/deep/er/other", "other")
			n.write("etc/deep/er/other", "other")
			n.wantContent(map[string]string{"usr/deep/er/other": "other", "etc/deep/er/other": "other"})
		})
	}
}
