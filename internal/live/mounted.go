package live

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/difference"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/rootfs"
	"github.com/powernode/powernode-agent/internal/tree"
)

// TopLevel is a top-level directory that something is mounted on.
type TopLevel struct {
	Name string `json:"name"`
	// RootDigest is the root image whose directory it is; zero where the mount isn't ours.
	RootDigest fsverity.Digest `json:"root_digest,omitzero"`
	// EtcLayer says that it is local changes to /etc over that image's, and not part of the union.
	EtcLayer bool `json:"etc_layer,omitempty"`
	// Upper and Work are the directories of its overlay, by the paths that they had.
	Upper string `json:"upper,omitempty"`
	Work  string `json:"work,omitempty"`
	// Covered are mounts of ours beneath what is seen: a change was killed and not recovered from.
	Covered int `json:"covered,omitempty"`
}

// State is what is mounted, by the kernel's own table.
type State struct {
	// Base is the union at the root itself.
	Base mount.MountedUnion `json:"base"`
	// Directories are the top-level directories with a mount of ours, or of others in the place of the
	// image's, by name. Those that belong to the machine and not to the root image aren't among them.
	Directories []TopLevel `json:"directories,omitempty"`
}

// Mounted reads what is mounted at root, "/" on a node. It is a refusal where that is no union of ours.
func Mounted(root string) (State, error) {
	base, err := mount.UnionAt(root)
	if err != nil {
		return State{}, err
	}
	table, err := mount.ReadTable()
	if err != nil {
		return State{}, err
	}
	return stateOf(table, base, root), nil
}

func stateOf(table mount.Table, base mount.MountedUnion, root string) State {
	s := State{Base: base}
	seen := make(map[string]bool)
	for _, e := range table.Children(base.Entry.ID.Mount) {
		name := filepath.Base(e.Point)
		if filepath.Dir(e.Point) != filepath.Clean(root) || slices.Contains(never, name) || seen[name] {
			continue
		}
		seen[name] = true
		s.Directories = append(s.Directories, directoryOf(name, table.Stack(base.Entry.ID.Mount, e.Point)))
	}
	slices.SortFunc(s.Directories, func(a, b TopLevel) int { return strings.Compare(a.Name, b.Name) })
	return s
}

func directoryOf(name string, stack mount.Table) TopLevel {
	top := stack[len(stack)-1]
	d := TopLevel{Name: name, Covered: len(stack) - 1}
	if u, ok := mount.Ours(top); ok {
		d.RootDigest, d.Upper, d.Work = u.Digest, u.Upper, u.Work
		return d
	}
	if digest, ok := rootfs.EtcLayerOf(top); ok {
		d.RootDigest, d.EtcLayer = digest, true
		d.Upper, _ = top.Value("upperdir")
		d.Work, _ = top.Value("workdir")
	}
	return d
}

// Of returns the root image that a top-level directory shows, and false where a mount of others
// covers it.
func (s State) Of(name string) (fsverity.Digest, bool) {
	for _, d := range s.Directories {
		if d.Name == name {
			return d.RootDigest, !d.RootDigest.IsZero()
		}
	}
	return s.Base.Digest, true
}

// Digests are the root images that are mounted, that of the base first.
func (s State) Digests() []fsverity.Digest {
	digests := []fsverity.Digest{s.Base.Digest}
	for _, d := range s.Directories {
		if !d.RootDigest.IsZero() && !slices.Contains(digests, d.RootDigest) {
			digests = append(digests, d.RootDigest)
		}
	}
	return digests
}

// Deviation is a name in "/" that isn't what a root image has there.
type Deviation struct {
	Name string `json:"name"`
	// RootDigest is the root image that the name shows; zero where it is covered by others' mounts, or
	// is a name in "/" itself.
	RootDigest fsverity.Digest `json:"root_digest,omitzero"`
}

// Deviations compares what is mounted at root with a root image, given a way to read root images: the
// trees of each top-level directory as a whole, and the links in "/" as they are seen. Times don't
// count in "/" itself, the directories that belong to the machine not at all, nor what the writable
// layer holds. None says that the whole is equal to that image.
func Deviations(s State, root string, digest fsverity.Digest, read func(fsverity.Digest) (*tree.Node, error)) ([]Deviation, error) {
	want, err := read(digest)
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool)
	for name := range want.Entries() {
		names[name] = true
	}
	images := make(map[fsverity.Digest]*tree.Node)
	for _, d := range s.Digests() {
		if images[d], err = read(d); err != nil {
			return nil, err
		}
		for name := range images[d].Entries() {
			names[name] = true
		}
	}
	var deviations []Deviation
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if slices.Contains(never, name) {
			continue
		}
		if d, ok := deviates(s, root, name, want.Child(name), images); ok {
			deviations = append(deviations, d)
		}
	}
	return deviations, nil
}

func deviates(s State, root, name string, want *tree.Node, images map[fsverity.Digest]*tree.Node) (Deviation, bool) {
	digest, ok := s.Of(name)
	if !ok {
		return Deviation{Name: name}, true
	}
	if got := images[digest].Child(name); same(got, want) {
		// A link that a live change made since is another one; one that somebody changed is the upper's.
		made := want != nil && want.Kind == tree.Symlink && marked(filepath.Join(root, name))
		return Deviation{Name: name}, made && !isLink(root, name, want.Target)
	}
	mounted := slices.ContainsFunc(s.Directories, func(d TopLevel) bool { return d.Name == name })
	switch {
	case want == nil && mounted:
		// What the image doesn't have stays as a directory without anything of an image.
		return Deviation{Name: name, RootDigest: digest}, images[digest].Child(name) != nil
	case want == nil:
		_, err := os.Lstat(filepath.Join(root, name))
		return Deviation{Name: name, RootDigest: digest}, !errors.Is(err, unix.ENOENT)
	case want.Kind == tree.Symlink:
		return Deviation{Name: name}, !isLink(root, name, want.Target)
	default:
		return Deviation{Name: name, RootDigest: digest}, true
	}
}

func marked(path string) bool {
	_, err := unix.Lgetxattr(path, mark, nil)
	return err == nil
}

func isLink(root, name, target string) bool {
	got, err := os.Readlink(filepath.Join(root, name))
	return err == nil && got == target
}

// same reports whether two names of two images are equal with all that is below.
func same(a, b *tree.Node) bool {
	if a == nil || b == nil {
		return a == b
	}
	x, y := tree.NewDir(0), tree.NewDir(0)
	x.SetChild("x", a)
	y.SetChild("x", b)
	return difference.Compare(x, y).Empty()
}

// Whole returns the root digest that what is mounted at root is equal to, by Deviations. wanted is
// tried first. False says that it is a mixture.
func Whole(s State, root string, wanted fsverity.Digest, read func(fsverity.Digest) (*tree.Node, error)) (fsverity.Digest, bool, error) {
	candidates := s.Digests()
	if !wanted.IsZero() {
		candidates = append([]fsverity.Digest{wanted}, candidates...)
	}
	for _, digest := range candidates {
		deviations, err := Deviations(s, root, digest, read)
		if err != nil {
			return fsverity.Digest{}, false, err
		}
		if len(deviations) == 0 {
			return digest, true, nil
		}
	}
	return fsverity.Digest{}, false, nil
}
