package reconcile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/composefs"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/tree"
)

// Damage is one thing of a generation that isn't what it should be.
type Damage struct {
	// Kind is "file", "module image", "root image" or "module record".
	Kind string `json:"kind"`
	// Object is what is damaged; zero for a record.
	Object fsverity.Digest `json:"object,omitzero"`
	// Modules are those that it belongs to, by "name version"; none for the root image.
	Modules []string `json:"modules,omitempty"`
	// Paths are the files that have it as content, at most pathsMax; More is how many there are beyond.
	Paths []string `json:"paths,omitempty"`
	More  int      `json:"more_paths,omitempty"`
	// Problem is what was found.
	Problem string `json:"problem"`
}

// pathsMax is how many paths of one damaged object are told.
const pathsMax = 8

// String says in a sentence what is damaged.
func (d Damage) String() string {
	var what string
	switch d.Kind {
	case "file":
		what = "a file"
		if len(d.Paths) > 0 {
			what = strings.Join(d.Paths, ", ")
		}
		if d.More > 0 {
			what += fmt.Sprintf(" and %d more", d.More)
		}
	default:
		what = "the " + d.Kind
	}
	if len(d.Modules) > 0 {
		what += " of " + strings.Join(d.Modules, ", ")
	}
	return what + ": " + d.Problem
}

// Inspector looks for damage in what a generation consists of. It changes nothing.
type Inspector struct {
	Store      *store.Store
	Generation store.Generation
}

// content is everything that a generation refers to.
type content struct {
	kind    string
	modules []int
}

// contents returns the objects of the generation, and damage for each record that can't be read.
func (i Inspector) contents() (map[fsverity.Digest]*content, []Damage) {
	all := map[fsverity.Digest]*content{i.Generation.RootDigest: {kind: "root image"}}
	var damage []Damage
	add := func(d fsverity.Digest, kind string, module int) {
		c := all[d]
		if c == nil {
			c = &content{kind: kind}
			all[d] = c
		}
		c.modules = append(c.modules, module)
	}
	for n, m := range i.Generation.Modules {
		add(m.Seal, "module image", n)
		rec, err := i.Store.GetModule(m.ManifestDigest)
		if err != nil {
			damage = append(damage, Damage{Kind: "module record", Modules: []string{i.name(n)}, Problem: err.Error()})
			continue
		}
		for _, d := range rec.Objects {
			add(d, "file", n)
		}
	}
	return all, damage
}

func (i Inspector) name(n int) string {
	m := i.Generation.Modules[n]
	return m.Name + " " + m.Version
}

// All checks everything that the generation refers to, and the records that say so. With deep, every
// byte is read also where fs-verity is enabled, which is the only way to find what nobody has read yet.
func (i Inspector) All(ctx context.Context, deep bool) ([]Damage, error) {
	all, damage := i.contents()
	bad, err := i.Store.Damaged(ctx, slices.Collect(maps.Keys(all)), deep)
	if err != nil {
		return nil, err
	}
	return append(damage, i.describe(all, bad)...), nil
}

// Suspects reads the files whole that the kernel's log tells of, as far as they are this
// generation's, and returns those that are damaged indeed: one that was mended since isn't any more.
func (i Inspector) Suspects(ctx context.Context, told []Corruption) ([]Damage, error) {
	if len(told) == 0 {
		return nil, nil
	}
	all, _ := i.contents()
	device := deviceOf(i.Store.ObjectsDir())
	inodes := make(map[uint64]bool)
	for _, c := range told {
		if device == "" || c.Device == device {
			inodes[c.Inode] = true
		}
	}
	var suspects []fsverity.Digest
	for d := range all {
		var st unix.Stat_t
		err := unix.Fstatat(int(i.Store.ObjectsDir().Fd()), d.ObjectPath(), &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && inodes[st.Ino] {
			suspects = append(suspects, d)
		}
	}
	bad, err := i.Store.Damaged(ctx, suspects, true)
	if err != nil {
		return nil, err
	}
	return i.describe(all, bad), nil
}

// describe says what the damaged objects are, in a fixed order.
func (i Inspector) describe(all map[fsverity.Digest]*content, bad map[fsverity.Digest]error) []Damage {
	var damage []Damage
	paths := i.paths(all, bad)
	for _, d := range slices.SortedFunc(maps.Keys(bad), func(a, b fsverity.Digest) int { return bytes.Compare(a[:], b[:]) }) {
		c := all[d]
		found := Damage{Kind: c.kind, Object: d, Problem: fault.OneLine(bad[d].Error()), Paths: paths[d]}
		for _, n := range c.modules {
			found.Modules = append(found.Modules, i.name(n))
		}
		if n := len(found.Paths); n > pathsMax {
			found.Paths, found.More = found.Paths[:pathsMax], n-pathsMax
		}
		damage = append(damage, found)
	}
	return damage
}

// paths finds the files that have damaged objects as content. A module whose image is damaged itself, or
// very large, names none.
func (i Inspector) paths(all map[fsverity.Digest]*content, bad map[fsverity.Digest]error) map[fsverity.Digest][]string {
	paths := make(map[fsverity.Digest][]string)
	in := make(map[int]bool)
	for d := range bad {
		for _, n := range all[d].modules {
			in[n] = in[n] || all[d].kind == "file"
		}
	}
	for n := range i.Generation.Modules {
		if !in[n] {
			continue
		}
		root, err := i.tree(i.Generation.Modules[n].Seal)
		if err != nil {
			continue
		}
		for path, node := range root.Walk() {
			if node.Kind == tree.Regular && bad[node.Digest] != nil && !slices.Contains(paths[node.Digest], "/"+path) {
				paths[node.Digest] = append(paths[node.Digest], "/"+path)
			}
		}
	}
	return paths
}

// imageMax is the largest image in bytes that is read for a message: of some 300000 files. The
// service that does it takes memory from what runs, and what is damaged is told without paths too.
const imageMax = 64 << 20

// tree reads a module's image without proving it: its word is for a message.
func (i Inspector) tree(seal fsverity.Digest) (*tree.Node, error) {
	f, err := i.Store.OpenModuleImage(seal)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	image, err := io.ReadAll(io.LimitReader(f, imageMax+1))
	if err != nil {
		return nil, err
	}
	if len(image) > imageMax {
		return nil, fmt.Errorf("the image is larger than %d bytes", imageMax)
	}
	if fsverity.SumBytes(image) != seal {
		return nil, errors.New("the image is damaged")
	}
	return composefs.Read(bytes.NewReader(image), int64(len(image)))
}

// DropCaches has the kernel forget names and contents of files that nobody has open. An overlay
// keeps the object that it found for a file for as long as it knows the file: after an object was
// replaced, files that are open or mapped go on with the old one until they are closed, and others only
// because of this.
func DropCaches() error {
	f, err := os.OpenFile("/proc/sys/vm/drop_caches", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("2\n")
	return errors.Join(err, f.Close())
}
