package live

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/powernode/powernode-agent/internal/rootfs"
)

func versionFiles(version string) map[string]string {
	return map[string]string{
		"usr/version": version, "usr/bin/tool": "#!/bin/sh\necho " + version + "\n", "usr/share/big": version + big, "usr/only-" + version: "x",
		"etc/version": version, "etc/conf": "image " + version, "opt/same": "same", "bin": "-> usr/bin", "current": "-> usr/" + version,
		"var/lib/x": version, "srv-" + version + "/file": version, "link-" + version: "-> usr",
	}
}

func TestSwap(t *testing.T) {
	for name, change := range map[string]func(*rootfs.Spec){
		"memory":        nil,
		"disk":          func(s *rootfs.Spec) { s.Upper.Kind = rootfs.OnPersist },
		"etc layer":     func(s *rootfs.Spec) { s.Etc = rootfs.Persistent },
		"etc in memory": func(s *rootfs.Spec) { s.Etc, s.PersistReadOnly, s.Remark = rootfs.Persistent, true, nil },
		"all on disk":   func(s *rootfs.Spec) { s.Upper.Kind, s.Etc = rootfs.OnPersist, rootfs.Persistent },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			a, b, c := n.files(versionFiles("a")), n.files(versionFiles("b")), n.files(versionFiles("c"))
			if name == "etc in memory" { // of what an earlier boot left on the disk
				must(t, os.MkdirAll(filepath.Join(n.store.Path(), "etc/upper"), 0o755))
				must(t, os.WriteFile(filepath.Join(n.store.Path(), "etc/upper/conf"), []byte("mine"), 0o644))
			}
			n.boot(a, change)
			n.whole(a)
			n.write("etc/local", "local")
			n.write("etc/conf", "mine")
			n.write("usr/local-file", "local")
			n.write("opt/local", "local")
			current := a
			for _, to := range []Side{b, c, a, c, b, a, b} {
				n.swap(current, to)
				current = to
				v := string("abc"[to.Generation-1])
				n.wantContent(map[string]string{
					"usr/version": v, "usr/share/big": v + big, "etc/version": v, "etc/conf": "mine", "etc/local": "local", "usr/local-file": "local",
					"opt/local": "local", "usr/only-" + v: "x", "srv-" + v + "/file": v, "link-" + v + "/version": v, "var/lib/x": "a",
				})
				for _, other := range []string{"a", "b", "c"} {
					if other != v {
						n.wantContent(map[string]string{"usr/only-" + other: "", "srv-" + other + "/file": "", "link-" + other: ""})
					}
				}
				n.write("usr/local-"+v, v)
				n.write("etc/local-"+v, v)
			}
			n.wantContent(map[string]string{"usr/local-a": "a", "usr/local-b": "b", "usr/local-c": "c", "etc/local-a": "a", "etc/local-b": "b", "etc/local-c": "c"})
			if len(n.remarks) > 0 {
				t.Errorf("remarks %q", n.remarks)
			}
		})
	}
}
