package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/tree"
)

// Of each file's kind there are so many to a package, which has a hundred: programs and libraries in directories that all
// packages share, the rest in directories of its own.
const (
	packageFiles = 100
	extraFiles   = 500
)

// filler makes the files of modules, always the same ones, and puts their contents into a store.
type filler struct {
	store *store.Store
	block []byte
	paths []string // of the files so far
}

func newFiller(st *store.Store) *filler {
	random := rand.New(rand.NewPCG(1, 2))
	f := &filler{store: st, block: make([]byte, 1<<20)}
	for i := 0; i < len(f.block); i += 8 {
		binary.LittleEndian.PutUint64(f.block[i:], random.Uint64())
	}
	return f
}

// module makes the tree of a module that has the files from first to before last of the distribution.
func (f *filler) module(name string, first, last int, manifest string) (*tree.Node, error) {
	root := tree.NewDir(0o755)
	put(root, module.ManifestPath(name), &tree.Node{Kind: tree.Regular, Mode: 0o644, Size: uint64(len(manifest)), Inline: []byte(manifest)})
	for i := first; i < last; i++ {
		path := pathOf(name, i)
		n, err := f.file(name, i)
		if err != nil {
			return nil, err
		}
		put(root, path, n)
		f.paths = append(f.paths, path)
	}
	return root, nil
}

// pathOf is where the file of that number lies. Those of the module that is attached have a directory of their own.
func pathOf(name string, i int) string {
	pkg, n := i/packageFiles, i%packageFiles
	if name == extraName {
		pkg += 100_000
	}
	switch {
	case n < 3:
		return fmt.Sprintf("etc/package-%04d/conf.d/%02d-setting.conf", pkg, n)
	case n < 8:
		return fmt.Sprintf("usr/bin/program-%04d-%d", pkg, n)
	case n < 16:
		return fmt.Sprintf("usr/lib/x86_64-linux-gnu/libpackage%04d-%d.so.%d", pkg, n, n)
	case n < 22:
		return fmt.Sprintf("usr/share/man/man%d/program-%04d-%d.gz", n%6+1, pkg, n)
	case n < 26:
		return fmt.Sprintf("usr/share/doc/package-%04d/document-%d", pkg, n)
	default:
		return fmt.Sprintf("usr/share/package-%04d/part-%d/resource-%04d.data", pkg, n/10, i%10_000)
	}
}

// file makes a file of a size as they are in distributions: many small ones, few large ones, 4 KB on average; one in
// thirty lies in the image itself.
func (f *filler) file(name string, i int) (*tree.Node, error) {
	seed := uint64(1)
	if name == extraName {
		seed = 2
	}
	random := rand.New(rand.NewPCG(seed, uint64(i)))
	size := max(65, min(int(math.Exp(7.3+1.4*random.NormFloat64())), 256<<10))
	if i%30 == 0 {
		size = 40
	}
	content := append(binary.LittleEndian.AppendUint64(nil, seed<<32|uint64(i)), f.block[i%4096:i%4096+size]...)[:size]
	n := &tree.Node{Kind: tree.Regular, Mode: 0o755, Size: uint64(size), Mtime: tree.Time{Sec: 1_700_000_000}}
	if size <= tree.InlineMax {
		n.Inline = content
		return n, nil
	}
	if n.Digest = fsverity.SumBytes(content); f.store.HasObject(n.Digest) {
		return n, nil
	}
	w, err := f.store.NewObject(int64(size))
	if err != nil {
		return nil, err
	}
	defer w.Abort()
	if _, err := w.Write(content); err != nil {
		return nil, err
	}
	_, _, err = w.Commit()
	return n, err
}

// put puts a node into a tree, with the directories above it.
func put(root *tree.Node, path string, n *tree.Node) {
	dir := root
	parts := strings.Split(path, "/")
	for _, p := range parts[:len(parts)-1] {
		next := dir.Child(p)
		if next == nil {
			next = tree.NewDir(0o755)
			next.Mtime = tree.Time{Sec: 1_700_000_000}
			dir.SetChild(p, next)
		}
		dir = next
	}
	dir.SetChild(parts[len(parts)-1], n)
}
