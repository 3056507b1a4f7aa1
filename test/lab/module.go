package lab

import (
	"bytes"
	"io"
	"maps"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/layer"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/tree"
)

// Module is a module to build. A builder would have made the same layout out of a directory.
type Module struct {
	Name, Version string
	// Arch is this machine's where it is "".
	Arch string
	// Manifest is appended to the lines that every manifest.yaml has.
	Manifest string
	// Files are contents by path; a path that ends in "/" is a directory, a content that begins
	// with "-> " a symlink.
	Files map[string]string
	// Programs are contents of executable files by path.
	Programs map[string][]byte
	// Undescribed makes it an image that is no module.
	Undescribed bool
	// Annotations are added to the manifest's own.
	Annotations map[string]string
}

// Base returns a module with an init, this one, without which nothing boots.
func Base(version string, init []byte) Module {
	return Module{
		Name: "base", Version: version,
		Files: map[string]string{
			"etc/os-release": "NAME=test\nVERSION=" + version + "\n",
			"sbin":           "-> usr/sbin",
			"var/lib/":       "", "proc/": "", "sys/": "", "dev/": "", "run/": "", "tmp/": "", "persist/": "",
		},
		Programs: map[string][]byte{"usr/sbin/init": init},
	}
}

// Layout builds the module into an OCI layout and returns its directory.
func (m Module) Layout(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(TempDir(t), m.Name+"-"+m.Version)
	l, err := ociimage.CreateLayout(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m.AddTo(t, l)
	return dir
}

// AddTo adds the module's image to a layout.
func (m Module) AddTo(t testing.TB, l *ociimage.Layout) *ociimage.Image {
	t.Helper()
	root, contents := m.Tree()
	d, err := l.AddLayer(t.Context(), root, layer.WriteOptions{Open: func(_ string, n *tree.Node) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(contents[n.Digest])), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	arch := m.Arch
	if arch == "" {
		arch = runtime.GOARCH
	}
	spec := ociimage.ImageSpec{Architecture: arch, Layers: []layer.Descriptor{d}, Tag: module.VersionTag(m.Version)}
	if !m.Undescribed {
		spec.Labels = map[string]string{module.LabelManifest: m.ManifestText()}
		spec.Annotations = map[string]string{module.AnnotationName: m.Name, module.AnnotationVersion: m.Version}
		maps.Copy(spec.Annotations, m.Annotations)
	}
	image, err := l.AddImage(spec)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// Sealed returns the module with its seal among the annotations, as powernode module publish
// would have it.
func (m Module) Sealed(t testing.TB) Module {
	t.Helper()
	root, _ := m.Tree()
	seal, err := ociimage.Seal(root)
	if err != nil {
		t.Fatal(err)
	}
	m.Annotations = map[string]string{module.AnnotationSeal: seal.String()}
	return m
}

// ManifestText is the module's manifest.yaml.
func (m Module) ManifestText() string {
	return "schema_version: 1\nname: " + m.Name + "\n" + m.Manifest
}

// Tree returns the module's tree, and the contents of its files by digest.
func (m Module) Tree() (*tree.Node, map[fsverity.Digest][]byte) {
	root, contents := tree.NewDir(0o755), make(map[fsverity.Digest][]byte)
	add := func(path string, n *tree.Node) {
		dir, name := directory(root, filepath.Dir(path)), filepath.Base(path)
		dir.SetChild(name, n)
	}
	regular := func(path string, text []byte, mode uint16) {
		n := &tree.Node{Kind: tree.Regular, Mode: mode, Size: uint64(len(text))}
		if len(text) <= tree.InlineMax {
			n.Inline = text
		} else {
			n.Digest = fsverity.SumBytes(text)
			contents[n.Digest] = text
		}
		add(path, n)
	}
	regular(module.ManifestPath(m.Name), []byte(m.ManifestText()), 0o644)
	for path, text := range m.Files {
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			add(path, &tree.Node{Kind: tree.Symlink, Mode: 0o777, Target: target})
		} else if dir, ok := strings.CutSuffix(path, "/"); ok {
			directory(root, dir)
		} else {
			regular(path, []byte(text), 0o644)
		}
	}
	for path, text := range m.Programs {
		regular(path, text, 0o755)
	}
	return root, contents
}

// directory returns the directory at path below root, made where it is missing.
func directory(root *tree.Node, path string) *tree.Node {
	dir := root
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." {
			continue
		}
		next := dir.Child(part)
		if next == nil {
			next = tree.NewDir(0o755)
			dir.SetChild(part, next)
		}
		dir = next
	}
	return dir
}
