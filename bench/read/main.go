// Command read measures in a virtual machine how fast directory trees of the same content are read:
// bench/vm-read.sh has test/vm run it.
//
//	read copy FROM TO [verity]         copies a tree, and enables fs-verity on its files
//	read measure RUNS NAME=DIR ...     prints a line "OPERATION STATE NAME NANOSECONDS FILES BYTES" for each measurement
//
// The operations are find (a walk with lstat of everything), small (reading the files below 64 KiB)
// and large (those of 1 MiB and more). The state is cold, with all caches dropped, or warm, right
// after the same was done once. The trees take turns within each run, in another order each time.
package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fsverity"
)

const (
	smallBelow = 64 << 10
	largeFrom  = 1 << 20
	bufferSize = 128 << 10
)

func main() {
	err := fmt.Errorf("read: want copy FROM TO [verity], or measure RUNS NAME=DIR [...]")
	switch args := os.Args[1:]; {
	case len(args) >= 3 && args[0] == "copy":
		err = copyTree(args[1], args[2], len(args) > 3 && args[3] == "verity")
	case len(args) >= 3 && args[0] == "measure":
		err = measure(args[1], args[2:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// tree is a directory with its regular files by size.
type tree struct {
	name, dir    string
	small, large []string
}

func newTree(arg string) (tree, error) {
	name, dir, _ := strings.Cut(arg, "=")
	t := tree{name: name, dir: dir}
	return t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		switch size := info.Size(); {
		case size < smallBelow:
			t.small = append(t.small, path)
		case size >= largeFrom:
			t.large = append(t.large, path)
		}
		return nil
	})
}

// find walks the tree with lstat of everything and returns how many names there are.
func (t tree) find() (names int, bytes int64, err error) {
	err = filepath.WalkDir(t.dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil {
			names++
			_, err = e.Info()
		}
		return err
	})
	return names, 0, err
}

func readAll(paths []string) (files int, bytes int64, err error) {
	buffer := make([]byte, bufferSize)
	for _, path := range paths {
		n, err := readFile(path, buffer)
		if err != nil {
			return 0, 0, err
		}
		bytes += n
	}
	return len(paths), bytes, nil
}

func readFile(path string, buffer []byte) (sum int64, err error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	for {
		n, err := unix.Read(fd, buffer)
		if err != nil {
			return 0, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			return sum, nil
		}
		sum += int64(n)
	}
}

func measure(runs string, args []string) error {
	count, err := strconv.Atoi(runs)
	if err != nil {
		return err
	}
	var trees []tree
	for _, arg := range args {
		t, err := newTree(arg)
		if err != nil {
			return err
		}
		trees = append(trees, t)
	}
	operations := []struct {
		name string
		do   func(tree) (int, int64, error)
	}{
		{"find", tree.find},
		{"small", func(t tree) (int, int64, error) { return readAll(t.small) }},
		{"large", func(t tree) (int, int64, error) { return readAll(t.large) }},
	}
	for run := range count {
		for _, op := range operations {
			for i := range trees {
				t := trees[(run+i)%len(trees)]
				if err := dropCaches(); err != nil {
					return err
				}
				for _, state := range []string{"cold", "warm"} {
					begin := time.Now()
					files, bytes, err := op.do(t)
					if err != nil {
						return err
					}
					fmt.Println(op.name, state, t.name, time.Since(begin).Nanoseconds(), files, bytes)
				}
			}
		}
	}
	return nil
}

// dropCaches has the kernel forget what it has read: contents, directories and inodes.
func dropCaches() error {
	unix.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0o200)
}

// copyTree copies directories, files and symbolic links.
func copyTree(from, to string, verity bool) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		at := filepath.Join(to, rel)
		switch {
		case e.IsDir():
			return os.MkdirAll(at, 0o755)
		case e.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(target, at)
		case e.Type().IsRegular():
			return copyFile(path, at, verity)
		}
		return nil
	})
}

func copyFile(from, to string, verity bool) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	if err := out.Close(); err != nil || !verity {
		return err
	}
	f, err := os.Open(to)
	if err != nil {
		return err
	}
	defer f.Close()
	return fsverity.Enable(f)
}
