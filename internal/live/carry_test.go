package live

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/rootfs"
)

// TestSubmounts has mounts of all kinds inside of the directories that are replaced.
func TestSubmounts(t *testing.T) {
	for name, etc := range map[string]rootfs.Etc{"ephemeral": rootfs.Ephemeral, "persistent": rootfs.Persistent} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			files := func(version string) Side {
				f := versionFiles(version)
				f["usr/local/"], f["usr/deep/er/place/"], f["etc/resolv.conf"] = "", "", "image"
				return n.files(f)
			}
			a, b := files("a"), files("b")
			n.boot(a, func(s *rootfs.Spec) { s.Etc = etc })
			n.write("etc/hostname", "local")
			other := t.TempDir()
			must(t, os.WriteFile(other+"/resolv.conf", []byte("bound"), 0o644))
			must(t, os.MkdirAll(other+"/local/inner", 0o755))
			must(t, unix.Mount(other+"/resolv.conf", n.in("etc/resolv.conf"), "", unix.MS_BIND, ""))
			must(t, unix.Mount(other+"/resolv.conf", n.in("etc/hostname"), "", unix.MS_BIND, ""))
			must(t, unix.Mount(other+"/local", n.in("usr/local"), "", unix.MS_BIND, ""))
			must(t, unix.Mount("nested", n.in("usr/local/inner"), "tmpfs", 0, ""))
			must(t, unix.Mount("deep", n.in("usr/deep/er/place"), "tmpfs", unix.MS_RDONLY, ""))
			n.write("usr/local/inner/file", "nested")
			report, err := Check(n.spec(a, b))
			must(t, err)
			if len(report.Obstacles) > 0 || len(report.Submounts) != 4 {
				t.Errorf("obstacles %+v, submounts %+v", report.Obstacles, report.Submounts)
			}
			current, next := a, b
			for range 4 {
				n.swap(current, next)
				current, next = next, current
				n.wantContent(map[string]string{
					"etc/resolv.conf": "bound", "etc/hostname": "bound", "usr/local/inner/file": "nested", "usr/version": string("ab"[current.Generation-1]),
				})
				if err := os.WriteFile(n.in("usr/deep/er/place/x"), nil, 0o600); !errors.Is(err, unix.EROFS) {
					t.Errorf("the read-only mount: %v", err)
				}
				table, err := mount.ReadTable()
				must(t, err)
				for _, source := range []string{"nested", "deep"} {
					count := 0
					for _, e := range table {
						if e.Source == source {
							count++
							if !e.Shared {
								t.Errorf("%s doesn't propagate any more", e.Point)
							}
						}
					}
					if count != 1 {
						t.Errorf("%s is mounted %d times", source, count)
					}
				}
			}
			// What is unmounted is gone, and the mount point below it is seen.
			must(t, unix.Unmount(n.in("etc/resolv.conf"), 0))
			n.wantContent(map[string]string{"etc/resolv.conf": "image"})
		})
	}
}

// TestObstacles has what can't be changed live: nothing is changed then, and it is said why.
func TestObstacles(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(n *node)
		from    map[string]string
		to      map[string]string
		want    string
	}{
		"the place of a submount is gone": {
			prepare: func(n *node) { must(n, unix.Mount("sub", n.in("usr/gone"), "tmpfs", 0, "")) },
			from:    map[string]string{"usr/gone/": ""}, want: "which the new root image doesn't have",
		},
		"mounts one upon the other": {
			prepare: func(n *node) {
				must(n, unix.Mount("sub", n.in("usr/bin"), "tmpfs", 0, ""))
				must(n, unix.Mount("sub", n.in("usr/bin"), "tmpfs", 0, ""))
			},
			want: "two mounts lie one upon the other",
		},
		"somebody else's mount": {
			prepare: func(n *node) { must(n, unix.Mount("volume", n.in("usr"), "tmpfs", 0, "")) },
			want:    "tmpfs from volume is mounted there",
		},
		"a file in the way": {
			prepare: func(n *node) { n.write("srv", "mine") },
			to:      map[string]string{"srv/x": "1"}, want: "/srv is not a directory here",
		},
		"a file in the root":      {to: map[string]string{"file": "x"}, want: "files in / itself"},
		"a directory gets a link": {from: map[string]string{"lib/x": "1"}, to: map[string]string{"lib": "-> usr/lib"}, want: "a directory becomes a link"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			files := func(version string, more map[string]string) Side {
				f := versionFiles(version)
				for path, content := range more {
					f[path] = content
				}
				return n.files(f)
			}
			a, b := files("a", test.from), files("b", test.to)
			n.boot(a, nil)
			if test.prepare != nil {
				test.prepare(n)
			}
			spec := n.spec(a, b)
			var err error
			spec.Tree, err = n.read(b.RootDigest)
			must(t, err)
			report, err := Check(spec)
			must(t, err)
			if len(report.Obstacles) != 1 || !strings.Contains(report.Obstacles[0].Why, test.want) {
				t.Errorf("obstacles %+v, want %q", report.Obstacles, test.want)
			}
			before, err := mount.ReadTable()
			must(t, err)
			_, err = Swap(context.Background(), spec)
			if err == nil || !strings.Contains(err.Error(), test.want) || fault.KindOf(err) != fault.Refuse || fault.HintOf(err) == "" {
				t.Errorf("swap: %v (kind %v, hint %q), want %q", err, fault.KindOf(err), fault.HintOf(err), test.want)
			}
			after, err := mount.ReadTable()
			must(t, err)
			if len(before) != len(after) || Recoverable(n.run) {
				t.Errorf("%d mounts before, %d after", len(before), len(after))
			}
			n.wantContent(map[string]string{"etc/version": "a"})
			if left, err := filepath.Glob(n.in("srv-b")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}
