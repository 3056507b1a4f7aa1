// Command store does what `mkcomposefs --digest-store` does with our own packages, for
// bench/store.sh: it puts the files of a tree into an object store and makes the tree's image.
// With -make it makes a tree to do that with.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/pprof"
	"time"

	"github.com/powernode/powernode-agent/internal/composefs"
	"github.com/powernode/powernode-agent/internal/store"
)

func main() {
	files := flag.Int("make", 0, "make a tree of this many files instead")
	profile := flag.String("profile", "", "write a CPU profile to this file")
	flag.Parse()
	if err := run(flag.Args(), *files, *profile); err != nil {
		fmt.Fprintln(os.Stderr, "store:", err)
		os.Exit(1)
	}
}

func run(args []string, files int, profile string) error {
	switch {
	case files > 0 && len(args) == 1:
		return makeTree(args[0], files)
	case files > 0 || len(args) != 2:
		return fmt.Errorf("usage: store TREE STORE, or store -make FILES TREE")
	}
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	return importTree(args[0], args[1])
}

func importTree(tree, dir string) error {
	start := time.Now()
	s, err := store.Open(dir, store.Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	root, err := composefs.FromDir(context.Background(), tree, composefs.ScanOptions{Content: s.AddFile})
	if err != nil {
		return err
	}
	image, digest, err := composefs.Build(root, composefs.V1)
	if err != nil {
		return err
	}
	w, err := s.NewObject(int64(len(image)))
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := w.ReadFrom(bytes.NewReader(image)); err != nil {
		return err
	}
	if _, _, err := w.Commit(); err != nil {
		return err
	}
	written := time.Since(start)
	if err := s.Sync(); err != nil {
		return err
	}
	fmt.Printf("%s written %.2f s, on the disk %.2f s\n", digest, written.Seconds(), time.Since(start).Seconds())
	return nil
}

// makeTree makes files like those of /usr/share: many small ones, few large ones, about 17 KB
// each on average. It makes the same tree every time.
func makeTree(dir string, files int) error {
	random := rand.New(rand.NewPCG(1, 2))
	block := make([]byte, 8<<20)
	for i := range block {
		block[i] = byte(random.Uint32())
	}
	for i := range files {
		sub := filepath.Join(dir, fmt.Sprintf("%02d", i%40), fmt.Sprintf("%03d", i/40%100))
		if i < 4000 {
			if err := os.MkdirAll(sub, 0o755); err != nil {
				return err
			}
		}
		size := int(math.Exp(7.9 + 1.95*random.NormFloat64()))
		size = max(65, min(size, len(block)-files))
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("file-%d", i)), block[i:i+size], 0o644); err != nil {
			return err
		}
	}
	return nil
}
