package live

import (
	"context"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/difference"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/rootfs"
	"github.com/powernode/powernode-agent/internal/tree"
)

// largeTree is a root of that many files, half of them too long to lie in the image, and a module of
// 500 more that an attached one brings. The contents are in no store: nobody opens them.
func (n *node) largeTree(files int, attached bool) *tree.Node {
	n.Helper()
	root := n.build(map[string]string{"usr/bin/tool": "x", "etc/conf": "x"})
	put := func(path string, i int) {
		dir := root.Child("usr")
		for _, part := range []string{"share", fmt.Sprintf("%s-%03d", path, i/256)} {
			next := dir.Child(part)
			if next == nil {
				next = tree.NewDir(0o755)
				dir.SetChild(part, next)
			}
			dir = next
		}
		node := &tree.Node{Kind: tree.Regular, Mode: 0o644, Size: 5, Inline: []byte("short")}
		if i%2 == 0 {
			node.Size, node.Inline, node.Digest = 4096, nil, fsverity.Digest(sha256.Sum256(fmt.Append(nil, path, i)))
		}
		dir.SetChild(fmt.Sprintf("file-%06d", i), node)
	}
	for i := range files {
		put("base", i)
	}
	if attached {
		for i := range 500 {
			put("module", i)
		}
		root.Child("etc").SetChild("module.conf", &tree.Node{Kind: tree.Regular, Mode: 0o644, Size: 1, Inline: []byte("x")})
	}
	return root
}

func BenchmarkSwap(b *testing.B) {
	for _, files := range []int{10_000, 60_000, 200_000} {
		for name, etc := range map[string]rootfs.Etc{"": rootfs.Ephemeral, "-etc-layer": rootfs.Persistent} {
			b.Run(fmt.Sprintf("%d%s", files, name), func(b *testing.B) {
				n := newNode(b)
				without, with := n.largeTree(files, false), n.largeTree(files, true)
				from, to := n.generation(without), n.generation(with)
				n.boot(from, func(s *rootfs.Spec) { s.Etc = etc })
				forth := Spec{Place: n.place(), From: from, To: to, Changes: Changes(difference.Compare(without, with).Top)}
				back := Spec{Place: n.place(), From: to, To: from, Changes: Changes(difference.Compare(with, without).Top)}
				var prepared, swapped time.Duration
				for b.Loop() {
					r, err := Swap(context.Background(), forth)
					must(b, err)
					must(b, Finish(n.run, nil))
					prepared, swapped = prepared+r.Prepared, swapped+r.Swapped
					forth, back = back, forth
				}
				b.ReportMetric(float64(prepared.Microseconds())/1000/float64(b.N), "prepare-ms")
				b.ReportMetric(float64(swapped.Microseconds())/1000/float64(b.N), "swap-ms")
			})
		}
	}
}

// BenchmarkMounted reads what is mounted, and compares it with a root image.
func BenchmarkMounted(b *testing.B) {
	n := newNode(b)
	from, to := n.generation(n.largeTree(60_000, false)), n.generation(n.largeTree(60_000, true))
	n.boot(from, nil)
	n.swap(from, to)
	for b.Loop() {
		s, err := Mounted(n.root)
		must(b, err)
		if _, ok, err := Whole(s, n.root, to.RootDigest, n.read); err != nil || !ok {
			b.Fatal(ok, err)
		}
	}
}
