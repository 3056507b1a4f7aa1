// Package composefstest makes trees to measure package composefs with. It is for tests and
// measurements only, and promises the same tree for the same size, always.
package composefstest

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/powernode/powernode-agent/internal/tree"
)

// Tree returns a tree with so many names, in the proportions of a Linux distribution: one in ten a
// directory, one in ten a symlink, one in twenty small enough to lie in the image, a few hard links, a
// few files with the content of others, SELinux labels throughout, and times that mostly differ.
func Tree(entries int) *tree.Node {
	g := generator{rng: rand.New(rand.NewPCG(1, 2))}
	root := tree.NewDir(0o755)
	g.describe(root)
	g.dirs = []place{{root, 0}}
	for i := 1; i < entries; i++ {
		g.add(i)
	}
	return root
}

type generator struct {
	rng   *rand.Rand
	dirs  []place
	files []*tree.Node
}

// place is a directory and how deep it lies.
type place struct {
	dir   *tree.Node
	depth int
}

// depthMax is how deep directories nest.
const depthMax = 7

// words are parts of names.
var words = strings.Fields("lib share doc python3 perl locale include systemd modules kernel net core data test config util x86_64 common")

// add puts one more name into some directory.
func (g *generator) add(i int) {
	name := fmt.Sprintf("%s-%s-%d", words[g.rng.IntN(len(words))], words[g.rng.IntN(len(words))], i)
	at := g.dirs[g.rng.IntN(len(g.dirs))]
	if g.rng.IntN(8) > 0 { // most names stand beside the last ones
		at = g.dirs[len(g.dirs)-1-g.rng.IntN(min(8, len(g.dirs)))]
	}
	for at.depth == depthMax {
		at = g.dirs[g.rng.IntN(len(g.dirs))]
	}
	dir := at.dir
	n := &tree.Node{Kind: tree.Regular, Mode: 0o644}
	switch kind := g.rng.IntN(100); {
	case kind < 10:
		n = tree.NewDir(0o755)
		g.dirs = append(g.dirs, place{n, at.depth + 1})
	case kind < 20:
		n = &tree.Node{Kind: tree.Symlink, Mode: 0o777, Target: "../" + name + ".so"}
	case kind < 25:
		n.Inline = []byte(name)
		n.Size = uint64(len(name))
	case kind < 27 && len(g.files) > 0:
		dir.SetChild(name, g.files[g.rng.IntN(len(g.files))])
		return
	case kind < 32 && len(g.files) > 0:
		*n = *g.files[g.rng.IntN(len(g.files))]
		n.Xattrs = nil
	default:
		n.Size = 65 + g.rng.Uint64N(1<<20)
		for at := range n.Digest {
			n.Digest[at] = byte(g.rng.Uint32())
		}
		g.files = append(g.files, n)
	}
	g.describe(n)
	dir.SetChild(name, n)
}

// describe gives a node a label and a time.
func (g *generator) describe(n *tree.Node) {
	n.Mtime = tree.Time{Sec: 1_700_000_000 + int64(g.rng.IntN(10_000)), Nsec: uint32(g.rng.IntN(1_000_000_000))}
	if g.rng.IntN(3) == 0 {
		n.Mtime = tree.Time{Sec: 1_700_000_000}
	}
	label := words[g.rng.IntN(len(words))]
	n.SetXattr("security.selinux", []byte("system_u:object_r:"+label+"_t:s0\x00"))
	if n.Kind == tree.Regular && g.rng.IntN(500) == 0 {
		n.SetXattr("security.capability", append([]byte{1, 0, 0, 2}, make([]byte, 16)...))
	}
}
