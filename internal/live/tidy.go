package live

import (
	"crypto/rand"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/mount"
)

// worksMax is how many work directories may lie beside an upper before those that are free are looked
// for: the kernel complains in its log of each one that isn't.
const worksMax = 8

// tidy removes work directories that no union uses any more: each change takes a new one. Nothing of
// it is worth a failure: a later change tries again, and a boot removes them all.
func (w *work) tidy() {
	for _, made := range w.works {
		_ = tidyWorks(filepath.Dir(made), made)
	}
}

// tidyWorks works in a directory that holds work directories, one of which is known to be in use.
func tidyWorks(parent, used string) error {
	dir, err := os.OpenRoot(parent)
	if err != nil {
		return err
	}
	defer dir.Close()
	// Not by a pattern: the path of the layer may have what a pattern takes for something else.
	entries, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return err
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return !strings.HasPrefix(e.Name(), workPrefix) })
	if len(entries) <= worksMax {
		return nil
	}
	temp := workPrefix + strings.ToLower(rand.Text())
	if err := dir.MkdirAll(temp, 0o700); err != nil {
		return err
	}
	defer func() { _ = dir.RemoveAll(temp) }()
	free := func(name string) (bool, error) {
		lower, upper := temp+"/lower", temp+"/upper-"+name
		if err := dir.MkdirAll(lower, 0o700); err != nil {
			return false, err
		}
		if err := dir.MkdirAll(upper, 0o700); err != nil {
			return false, err
		}
		var files [3]*os.File
		for i, path := range []string{lower, upper, name} {
			f, err := openDirectory(filepath.Join(parent, path))
			if err != nil {
				return false, err
			}
			defer f.Close()
			files[i] = f
		}
		inUse, err := mount.WorkInUse(files[0], files[1], files[2])
		return err == nil && !inUse, err
	}
	if isFree, err := free(filepath.Base(used)); err != nil || isFree {
		return err
	}
	for _, e := range entries {
		if isFree, err := free(e.Name()); err != nil || !isFree {
			continue
		}
		if err := dir.RemoveAll(e.Name()); err != nil {
			return err
		}
	}
	return nil
}
