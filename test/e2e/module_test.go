package e2e

import (
	"bytes"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/layer"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/tree"
)

// mod is a module to build. A builder would have made the same layout out of a directory.
type mod struct {
	name, version string
	// arch is this machine's where it is "".
	arch string
	// manifest is appended to the lines that every manifest.yaml has.
	manifest string
	// files are contents by path; a path that ends in "/" is a directory, a content that begins
	// with "-> " a symlink.
	files map[string]string
	// programs are contents of executable files by path.
	programs map[string][]byte
	// undescribed makes it an image that is no module.
	undescribed bool
	// annotations are added to the manifest's own.
	annotations map[string]string
}

// base returns the module with the init, without which nothing boots.
func base(version string) mod {
	return mod{
		name: "base", version: version,
		files: map[string]string{
			"etc/os-release": "NAME=test\nVERSION=" + version + "\n",
			"sbin":           "-> usr/sbin",
			"var/lib/":       "", "proc/": "", "sys/": "", "dev/": "", "run/": "", "tmp/": "", "persist/": "",
		},
		programs: map[string][]byte{"usr/sbin/init": initProgram()},
	}
}

// sharedText is in both of the modules below, under several paths, one of them in both.
var sharedText = strings.Repeat("the same content in two modules ", 10)

// site returns a module that overrides the page of app.
func site(version string) mod {
	return mod{name: "site", version: version, files: map[string]string{
		"etc/app/page": "the site's page, version " + version + ", " + strings.Repeat("longer than what lies in the image itself ", 4),
		"usr/share/x":  sharedText,
		"usr/share/xy": sharedText,
	}}
}

// app returns a module with content of its own and some that site overrides.
func app(version string) mod {
	return mod{name: "app", version: version, files: map[string]string{
		"etc/app/page":     "the app's page, version " + version + ", " + strings.Repeat("longer than what lies in the image itself ", 4),
		"usr/lib/app/data": strings.Repeat("the app's data ", 4096),
		"usr/share/y":      sharedText,
		"usr/share/xy":     sharedText,
	}}
}

// hostArch is what the tests run on.
const hostArch = runtime.GOARCH

var initProgram = sync.OnceValue(func() []byte {
	b, err := os.ReadFile(program("init"))
	if err != nil {
		panic(err)
	}
	return b
})

// layout builds the module into an OCI layout and returns its directory.
func (m mod) layout(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(tempDir(t), m.name+"-"+m.version)
	l, err := ociimage.CreateLayout(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	m.addTo(t, l)
	return dir
}

// addTo adds the module's image to a layout.
func (m mod) addTo(t testing.TB, l *ociimage.Layout) *ociimage.Image {
	t.Helper()
	root, contents := m.tree()
	d, err := l.AddLayer(t.Context(), root, layer.WriteOptions{Open: func(_ string, n *tree.Node) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(contents[n.Digest])), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	arch := m.arch
	if arch == "" {
		arch = hostArch
	}
	spec := ociimage.ImageSpec{Architecture: arch, Layers: []layer.Descriptor{d}, Tag: module.VersionTag(m.version)}
	if !m.undescribed {
		spec.Labels = map[string]string{module.LabelManifest: m.manifestText()}
		spec.Annotations = map[string]string{module.AnnotationName: m.name, module.AnnotationVersion: m.version}
		maps.Copy(spec.Annotations, m.annotations)
	}
	image, err := l.AddImage(spec)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// sealed returns the module with its seal among the annotations, as powernode module publish
// would have it.
func (m mod) sealed(t testing.TB) mod {
	t.Helper()
	root, _ := m.tree()
	seal, err := ociimage.Seal(root)
	if err != nil {
		t.Fatal(err)
	}
	m.annotations = map[string]string{module.AnnotationSeal: seal.String()}
	return m
}

func (m mod) manifestText() string { return "schema_version: 1\nname: " + m.name + "\n" + m.manifest }

// tree returns the module's tree, and the contents of its files by digest.
func (m mod) tree() (*tree.Node, map[fsverity.Digest][]byte) {
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
	regular(module.ManifestPath(m.name), []byte(m.manifestText()), 0o644)
	for path, text := range m.files {
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			add(path, &tree.Node{Kind: tree.Symlink, Mode: 0o777, Target: target})
		} else if dir, ok := strings.CutSuffix(path, "/"); ok {
			directory(root, dir)
		} else {
			regular(path, []byte(text), 0o644)
		}
	}
	for path, text := range m.programs {
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
