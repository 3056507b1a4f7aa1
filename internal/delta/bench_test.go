package delta

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/tree"
)

// benchUpper makes an upper of so many entries as an administrator's: most are files that were copied up and
// written, some of them metacopies and whiteouts, ten in a directory.
func benchUpper(b *testing.B, entries int) (*os.File, *tree.Node) {
	b.Helper()
	dir := upperDir(b)
	var files []string
	for i := 0; i < entries; {
		at := fmt.Sprintf("usr/share/d%05d", i)
		must(b, os.MkdirAll(dir+"/"+at, 0o755))
		must(b, unix.Lsetxattr(dir+"/"+at, markOrigin, make([]byte, 33), 0))
		i++
		for k := 0; k < 10 && i < entries; k, i = k+1, i+1 {
			name := fmt.Sprintf("%s/f%d", at, k)
			files = append(files, name, "content")
			switch k {
			case 0:
				put(b, dir+"/"+name, "", markOrigin, "x", markMetacopy, "")
			case 1:
				must(b, unix.Mknod(dir+"/"+name, unix.S_IFCHR, 0))
			default:
				put(b, dir+"/"+name, "content", markOrigin, "x")
			}
		}
	}
	f, err := os.Open(dir)
	must(b, err)
	b.Cleanup(func() { f.Close() })
	return f, dirTree(files...)
}

func BenchmarkScan(b *testing.B) {
	for _, entries := range []int{1000, 50_000} {
		b.Run(fmt.Sprint(entries), func(b *testing.B) {
			upper, image := benchUpper(b, entries)
			other := image.Clone()
			var d *Delta
			b.Run("scan", func(b *testing.B) {
				for b.Loop() {
					var err error
					d, err = Scan(b.Context(), upper, Limits{})
					must(b, err)
				}
			})
			b.Run("size", func(b *testing.B) {
				for b.Loop() {
					_, err := SizeOf(b.Context(), upper, 0)
					must(b, err)
				}
			})
			b.Run("conflicts", func(b *testing.B) {
				for b.Loop() {
					Conflicts(d, image, other)
				}
			})
			b.Run("settle", func(b *testing.B) {
				for b.Loop() {
					Settle(d, image, other, nil)
				}
			})
		})
	}
}

// BenchmarkSettle settles a renamed directory of 200 files of 4 KB, and as many files whose mode was changed.
func BenchmarkSettle(b *testing.B) {
	const files = 200
	for _, how := range []string{"live", "offline"} {
		b.Run(how, func(b *testing.B) {
			var old, other []string
			for i := range files {
				for _, dir := range []string{"opt/a", "etc"} {
					name := fmt.Sprintf("%s/f%03d", dir, i)
					old, other = append(old, name, big("a")), append(other, name, big("b"))
				}
			}
			for b.Loop() {
				b.StopTimer()
				n := newNode(b)
				from, to := n.image(old...), n.image(other...)
				m := n.mount(from)
				for i := range files {
					m.chmod(fmt.Sprintf("etc/f%03d", i), 0o600)
				}
				m.rename("opt/a", "opt/b")
				if how == "offline" {
					m.unmount()
				}
				b.StartTimer()
				p := Settle(n.scan(), from.tree, to.tree, nil)
				if how == "offline" {
					n.settleOffline(p)
				} else {
					n.settleLive(m, p)
				}
			}
		})
	}
}
