package main

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/store"
)

const lookupHeader = "" +
	"                                                     composed    a layer each    times as fast\n" +
	"  files modules"

// lookupsAtOnce is how many paths are looked up for one measurement.
const lookupsAtOnce = 20_000

// lookups compares the composed root with a stack of all modules' images, over the same objects and with a writable layer each,
// in turns, and prints the shortest times.
func (n *node) lookups(runs int) error {
	st, err := store.Open(n.state, store.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer st.Close()
	unix.Sync()
	stack, err := n.stack(st)
	if err != nil {
		return err
	}
	if err := n.alike(stack); err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(5, 6))
	there, missing := make([]string, lookupsAtOnce), make([]string, lookupsAtOnce)
	for i := range there {
		there[i] = n.paths[random.IntN(len(n.paths))]
		missing[i] = filepath.Join(filepath.Dir(n.paths[random.IntN(len(n.paths))]), fmt.Sprintf("missing-%d", i))
	}
	for _, op := range []struct {
		name string
		do   func(root string) (float64, error)
	}{
		{"stat, µs for a name", func(root string) (float64, error) { return stat(root, there, nil) }},
		{"stat of what isn't there, µs", func(root string) (float64, error) { return stat(root, missing, unix.ENOENT) }},
		{"find, µs for a name", find},
	} {
		measured := map[string][2][]float64{}
		for turn := range runs {
			for _, side := range []int{turn % 2, 1 - turn%2} {
				root := []string{n.root, stack}[side]
				if err := dropCaches(); err != nil {
					return err
				}
				for _, state := range []string{"cold", "warm"} {
					took, err := op.do(root)
					if err != nil {
						return err
					}
					m := measured[state]
					m[side] = append(m[side], took)
					measured[state] = m
				}
			}
		}
		for _, state := range []string{"cold", "warm"} {
			m := measured[state]
			composed, layers := slices.Min(m[0]), slices.Min(m[1])
			fmt.Printf("%7d %7d  %s %-28s %7.2f %12.2f %16.2f\n", n.files, n.modules, state, op.name, composed, layers, layers/composed)
		}
	}
	return nil
}

// stack mounts an overlay of all modules' images but the extra one's, the first module on top.
func (n *node) stack(st *store.Store) (string, error) {
	options := []mount.Option{
		mount.String("source", "stack"), mount.String("metacopy", "on"), mount.String("redirect_dir", "on"), mount.String("index", "off"),
	}
	for i, seal := range n.seals[:n.modules] {
		at := filepath.Join(n.run, "layers", fmt.Sprint(i))
		if err := attachImage(st, seal, at); err != nil {
			return "", err
		}
		options = append(options, mount.String("lowerdir+", at))
	}
	upper, work, at := filepath.Join(n.run, "stack-upper"), filepath.Join(n.run, "stack-work"), filepath.Join(n.run, "stack")
	for _, dir := range []string{upper, work, at} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return "", err
		}
	}
	options = append(options, mount.String("datadir+", st.ObjectsPath()), mount.String("upperdir", upper), mount.String("workdir", work))
	m, err := mount.New("overlay", 0, options...)
	if err != nil {
		return "", err
	}
	defer m.Close()
	return at, m.Attach(at)
}

func attachImage(st *store.Store, seal fsverity.Digest, at string) error {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	image, err := st.OpenModuleImage(seal)
	if err != nil {
		return err
	}
	defer image.Close()
	m, err := mount.EROFS(image, mount.NoSUID|mount.NoDev)
	if err != nil {
		return err
	}
	defer m.Close()
	return m.Attach(at)
}

// alike makes sure that both sides have all files, and the same content of one.
func (n *node) alike(stack string) error {
	for _, path := range n.paths {
		for _, root := range []string{n.root, stack} {
			if _, err := os.Lstat(filepath.Join(root, path)); err != nil {
				return err
			}
		}
	}
	a, errA := os.ReadFile(filepath.Join(n.root, n.paths[50]))
	b, errB := os.ReadFile(filepath.Join(stack, n.paths[50]))
	if errA != nil || errB != nil || !slices.Equal(a, b) {
		return fmt.Errorf("the stack isn't what the root is: %w", errors.Join(errA, errB))
	}
	return nil
}

// stat looks up paths, and returns how many microseconds each took. want is the error of each.
func stat(root string, paths []string, want error) (float64, error) {
	full := make([]string, len(paths))
	for i, path := range paths {
		full[i] = filepath.Join(root, path)
	}
	var s unix.Stat_t
	begun := time.Now()
	for _, path := range full {
		if err := unix.Lstat(path, &s); !errors.Is(err, want) {
			return 0, fmt.Errorf("look up %s: %w", path, err)
		}
	}
	return float64(time.Since(begun).Nanoseconds()) / 1000 / float64(len(paths)), nil
}

// find looks at everything that modules have below a root.
func find(root string) (float64, error) {
	names := 0
	begun := time.Now()
	for _, top := range []string{"etc", "usr"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, e fs.DirEntry, err error) error {
			if err == nil {
				names++
				_, err = e.Info()
			}
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	return float64(time.Since(begun).Nanoseconds()) / 1000 / float64(names), nil
}

// dropCaches has the kernel forget what it read from the disk, and names, but for what isn't on the disk yet.
func dropCaches() error {
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
}
