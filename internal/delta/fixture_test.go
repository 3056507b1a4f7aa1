package delta

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/composefs"
	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/mount/mounttest"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/tree"
)

func TestMain(m *testing.M) { os.Exit(mounttest.Main(m)) }

// big returns content that is too long to lie in an image, a different one for each seed.
func big(seed string) string { return strings.Repeat(seed+" ", 2000) }

// node is a machine with an object store, root images and one writable layer.
type node struct {
	testing.TB
	dir   string
	store *store.Store
	level mount.Level
	works int
}

// image is a root image and the tree that it was written from.
type image struct {
	digest fsverity.Digest
	tree   *tree.Node
}

func newNode(t testing.TB) *node {
	t.Helper()
	mounttest.NeedMounts(t)
	n := &node{TB: t, dir: t.TempDir()}
	var err error
	n.store, err = store.Open(filepath.Join(n.dir, "state"), store.Options{})
	must(t, err)
	t.Cleanup(func() { n.store.Close() })
	abilities, err := mount.Probe(n.store.ObjectsPath())
	must(t, err)
	n.level, err = mount.Decide(abilities, mount.Checked)
	must(t, err)
	must(t, os.MkdirAll(filepath.Join(n.layer(), "upper"), 0o755))
	must(t, os.MkdirAll(filepath.Join(n.layer(), "aside"), 0o700))
	return n
}

func (n *node) layer() string { return filepath.Join(n.dir, "layer") }

// upper opens the writable layer; hook may be nil.
func (n *node) upper(hook durable.Hook) *durable.Dir { return n.open("upper", hook) }

func (n *node) open(name string, hook durable.Hook) *durable.Dir {
	n.Helper()
	d, err := durable.OpenDir(filepath.Join(n.layer(), name), hook)
	must(n, err)
	n.Cleanup(func() { d.Close() })
	return d
}

// image makes a root image of files: path and content. A path that ends in a slash is a directory,
// content that begins with "-> " a symlink, and with "= " a hard link to another path.
func (n *node) image(files ...string) image {
	n.Helper()
	source := n.TempDir()
	for i := 0; i < len(files); i += 2 {
		name, content := files[i], files[i+1]
		path := filepath.Join(source, name)
		must(n, os.MkdirAll(filepath.Dir(path), 0o755))
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			must(n, os.Symlink(target, path))
		} else if other, ok := strings.CutPrefix(content, "= "); ok {
			must(n, os.Link(filepath.Join(source, other), path))
		} else if strings.HasSuffix(name, "/") {
			must(n, os.MkdirAll(path, 0o755))
		} else {
			must(n, os.WriteFile(path, []byte(content), 0o755))
		}
	}
	return n.imageOf(source)
}

func (n *node) imageOf(source string) image {
	n.Helper()
	root, err := composefs.FromDir(n.Context(), source, composefs.ScanOptions{
		UseEpoch: true, HardLinks: true, Content: func(f *os.File) (fsverity.Digest, uint64, error) { return n.store.AddFile(f) },
	})
	must(n, err)
	data, digest, err := composefs.Build(root, composefs.V1)
	must(n, err)
	_, err = n.store.PutGeneration(store.Generation{RootDigest: digest, Cause: "test", Level: string(n.level), Created: time.Unix(1, 0)}, bytes.NewReader(data))
	must(n, err)
	if n.level == mount.Enforced {
		digests := []fsverity.Digest{digest}
		for _, f := range root.Walk() {
			if f.Kind == tree.Regular && !f.Digest.IsZero() {
				digests = append(digests, f.Digest)
			}
		}
		must(n, n.store.EnableVerity(n.Context(), digests))
	}
	root, err = composefs.Read(bytes.NewReader(data), int64(len(data)))
	must(n, err)
	return image{digest, root}
}

// mounted is a union over the node's writable layer.
type mounted struct {
	testing.TB
	*mount.Mount
	at string
}

// mount mounts an image with the node's writable layer over it and a work directory of its own.
func (n *node) mount(i image) *mounted {
	n.Helper()
	n.works++
	work := filepath.Join(n.layer(), "work-"+string(rune('a'+n.works)))
	must(n, os.MkdirAll(work, 0o700))
	w, err := os.Open(work)
	must(n, err)
	defer w.Close()
	file, err := n.store.OpenRootImage(i.digest)
	must(n, err)
	defer file.Close()
	u, err := mount.Union(mount.UnionSpec{
		Image: file, Digest: i.digest, Objects: n.store.ObjectsDir(), Level: n.level,
		Upper: n.upper(nil).File(), Work: w, Scratch: n.TempDir(),
	})
	must(n, err)
	m := &mounted{TB: n, Mount: u, at: n.TempDir()}
	must(n, u.Attach(m.at))
	n.Cleanup(m.unmount)
	return m
}

func (m *mounted) unmount() {
	m.Close()
	_ = unix.Unmount(m.at, unix.MNT_DETACH)
}

func (m *mounted) path(name string) string { return filepath.Join(m.at, name) }

func (m *mounted) read(name string) string {
	m.Helper()
	b, err := os.ReadFile(m.path(name))
	if err != nil {
		return "!" + err.Error()
	}
	return string(b)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
