// Command store puts every regular file of a tree into an object store, for bench/store.sh.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"time"

	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/tree"
)

func main() {
	workers := flag.Int("p", runtime.NumCPU(), "goroutines")
	profile := flag.String("profile", "", "write a CPU profile here")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: store [-p N] TREE STORE")
		os.Exit(2)
	}
	if *profile != "" {
		f, _ := os.Create(*profile)
		pprof.StartCPUProfile(f)
		defer pprof.StopCPUProfile()
	}
	if err := run(flag.Arg(0), flag.Arg(1), *workers); err != nil {
		fmt.Fprintln(os.Stderr, "store:", err)
		os.Exit(1)
	}
}

func run(root, dir string, workers int) error {
	runtime.GOMAXPROCS(workers)
	start := time.Now()
	s, err := store.Open(dir, store.Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	im := s.NewImporter()
	files, bytes := 0, int64(0)
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if info.Size() > tree.InlineMax {
			files++
			bytes += info.Size()
			return im.AddFile(func() (*os.File, error) { return os.Open(path) }, nil)
		}
		return nil
	})
	if err := errors.Join(err, im.Wait()); err != nil {
		return err
	}
	written := time.Since(start)
	if err := s.Sync(); err != nil {
		return err
	}
	fmt.Printf("%d files, %d MB: written %.2f s, synced %.2f s\n", files, bytes/1e6, written.Seconds(), time.Since(start).Seconds())
	return nil
}

