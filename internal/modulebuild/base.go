package modulebuild

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/compose"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/layer"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/tree"
)

// objects is a directory of file contents, named by their digests: a layer.Sink.
type objects struct{ dir string }

// NewObject starts an object; see layer.Sink.
func (o objects) NewObject(int64) (layer.ObjectWriter, error) {
	f, err := os.CreateTemp(o.dir, "new-")
	if err != nil {
		return nil, err
	}
	return &objectWriter{File: f, hasher: fsverity.NewHasher(), dir: o.dir}, nil
}

func (o objects) path(d fsverity.Digest) string { return filepath.Join(o.dir, d.String()) }

type objectWriter struct {
	*os.File
	hasher *fsverity.Hasher
	dir    string
}

func (w *objectWriter) Write(p []byte) (int, error) {
	_, _ = w.hasher.Write(p) // a hash takes everything
	return w.File.Write(p)
}

// ReadFrom hides the file's own, which would pass the hasher by.
func (w *objectWriter) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{w}, r)
}

func (w *objectWriter) Commit() (fsverity.Digest, bool, error) {
	d := w.hasher.Sum()
	err := w.Close()
	if err == nil {
		err = os.Rename(w.Name(), filepath.Join(w.dir, d.String()))
	}
	return d, true, err
}

func (w *objectWriter) Abort() { _ = errors.Join(w.Close(), os.Remove(w.Name())) }

// readBases composes the bases as a node would.
func (b *builder) readBases(ctx context.Context) (*content, error) {
	store := objects{filepath.Join(b.work, "objects")}
	if err := os.Mkdir(store.dir, 0o700); err != nil {
		return nil, err
	}
	var inputs []compose.Input
	for i, path := range b.Bases {
		b.Stage("read the base " + path)
		in, err := readBase(ctx, path, b.debianArchitecture(), store)
		if err != nil {
			return nil, err
		}
		in.EffectivePriority = i
		inputs = append(inputs, in)
	}
	r, err := compose.Compose(inputs)
	if err != nil {
		return nil, err
	}
	c := &content{root: r.Root, files: make(map[*tree.Node]string)}
	for _, n := range r.Root.Walk() {
		if n.Kind == tree.Regular && n.Size > 0 && n.Inline == nil {
			c.files[n] = store.path(n.Digest)
		}
	}
	return c, nil
}

// readBase reads a module from a layout.
func readBase(ctx context.Context, path, arch string, store objects) (compose.Input, error) {
	layout, err := ociimage.OpenLayout(path)
	if err != nil {
		return compose.Input{}, fmt.Errorf("read the base: %w", err)
	}
	defer layout.Close() //nolint:errcheck // only read from
	image, err := layout.Resolve(ctx, ociimage.Reference{}, arch)
	if err != nil {
		return compose.Input{}, fmt.Errorf("read the base: %w", err)
	}
	m, err := module.ParseManifest([]byte(image.Labels[module.LabelManifest]))
	if err != nil {
		return compose.Input{}, fault.New(fault.Refuse, fault.Input, "name a module that was built with powernode module build", "read the base %s: %w", path, err)
	}
	root, _, err := ociimage.Pull(ctx, layout, image, ociimage.PullOptions{Sink: store})
	if err != nil {
		return compose.Input{}, fmt.Errorf("read the base %s: %w", path, err)
	}
	return compose.Input{Name: m.Name, Root: root, Mask: m.Mask, Protected: m.ProtectedSpec}, nil
}

// materialize writes the tree into a new directory with all attributes. Only what can appear in a
// tree that package layer read is made, and only in directories made by this call.
func (c *content) materialize(dir string) error {
	m := materializer{content: c, links: make(map[*tree.Node]string)}
	return m.directory(dir, c.root)
}

type materializer struct {
	*content
	links map[*tree.Node]string
}

func (m *materializer) directory(path string, dir *tree.Node) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	for name, n := range dir.Entries() {
		at := filepath.Join(path, name)
		if n.Kind == tree.Directory {
			if err := m.directory(at, n); err != nil {
				return err
			}
			continue
		}
		if first, ok := m.links[n]; ok {
			if err := os.Link(first, at); err != nil {
				return err
			}
			continue
		}
		m.links[n] = at
		if err := m.leaf(at, n); err != nil {
			return err
		}
	}
	return attributesOf(path, dir)
}

func (m *materializer) leaf(path string, n *tree.Node) error {
	var err error
	switch n.Kind {
	case tree.Regular:
		err = m.regular(path, n)
	case tree.Symlink:
		err = os.Symlink(n.Target, path)
	case tree.FIFO:
		err = unix.Mkfifo(path, 0o600)
	default:
		err = fault.New(fault.Refuse, fault.Input, "build the base again", "%s is a device", path)
	}
	if err != nil {
		return err
	}
	return attributesOf(path, n)
}

func (m *materializer) regular(path string, n *tree.Node) (err error) {
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if n.Size == 0 || n.Inline != nil {
		_, err = out.Write(n.Inline)
		return err
	}
	in, err := m.open(path, n)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read from
	_, err = io.Copy(out, in)
	return err
}

// attributesOf sets owner, mode, xattrs and time, in the order in which none undoes another:
// chown takes set-user-ID bits and capabilities away.
func attributesOf(path string, n *tree.Node) error {
	if err := os.Lchown(path, int(n.UID), int(n.GID)); err != nil {
		return err
	}
	if n.Kind != tree.Symlink {
		if err := unix.Chmod(path, uint32(n.Mode)); err != nil {
			return &os.PathError{Op: "chmod", Path: path, Err: err}
		}
	}
	for _, x := range n.Xattrs {
		if err := unix.Lsetxattr(path, x.Name, x.Value, 0); err != nil {
			return &os.PathError{Op: "setxattr " + x.Name, Path: path, Err: err}
		}
	}
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: n.Mtime.Sec, Nsec: int64(n.Mtime.Nsec)}}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "utimensat", Path: path, Err: err}
	}
	return nil
}
