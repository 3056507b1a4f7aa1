package aftercare

import (
	"errors"
	"path/filepath"
	"strings"

	"github.com/powernode/powernode-agent/internal/mount"
)

// View says which file system shows what of a root: since a live change, the directories in "/" may each show another
// union than "/" itself.
type View struct {
	// Root is the directory that is the root; "/" on a node.
	Root string
	// Base is the file system at the root, and Top those at its directories that have a mount of their own, by
	// name.
	Base Device
	Top  map[string]Device
}

// ReadView reads from the kernel's tables what a root shows.
func ReadView(root string) (View, error) {
	v := View{Root: filepath.Clean(root), Top: make(map[string]Device)}
	base, err := mount.At(root)
	if err != nil {
		return View{}, err
	}
	v.Base = deviceOf(base)
	table, err := mount.ReadTable()
	if err != nil {
		return View{}, err
	}
	for _, e := range table {
		name, ok := v.inside(e.Point)
		if name = strings.TrimPrefix(name, "/"); !ok || name == "" || strings.Contains(name, "/") || e.FSType != "overlay" {
			continue
		}
		top, err := mount.At(e.Point)
		if errors.Is(err, mount.ErrNotMounted) {
			continue // it went away meanwhile
		}
		if err != nil {
			return View{}, err
		}
		v.Top[name] = deviceOf(top)
	}
	return v, nil
}

func deviceOf(e mount.Entry) Device { return Device{e.ID.Major, e.ID.Minor} }

// inside returns a path of the machine as it is in the root.
func (v View) inside(path string) (string, bool) {
	if v.Root == "/" {
		return path, true
	}
	if path == v.Root {
		return "/", true
	}
	return cutRoot(path, v.Root)
}

func cutRoot(path, root string) (string, bool) {
	rest, ok := strings.CutPrefix(path, root+"/")
	return "/" + rest, ok
}

// at returns the file system that shows a path of the root.
func (v View) at(path string) Device {
	top, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if d, ok := v.Top[top]; ok {
		return d
	}
	return v.Base
}
