package docs

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/layer"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/modulebuild"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/oracle"
)

// TestSealByHand runs the commands of docs/module-format.md with which anybody recomputes a seal,
// and compares what they print with the seal that this project computes.
func TestSealByHand(t *testing.T) {
	p := findPage(t, "docs/module-format.md")
	dir, seal := sealedLayout(t, "nginx-site", nil)
	out := shell(t, dir, p.marked(t, "test: seal").text)
	if want := []string{seal, seal}; !slices.Equal(out, want) {
		t.Errorf("the commands print %q, the seal is %s", out, seal)
	}
}

// TestSealByHandWithHardLinks does the same for a module with hard links, which mkcomposefs
// doesn't see in a directory.
func TestSealByHandWithHardLinks(t *testing.T) {
	p := findPage(t, "docs/module-format.md")
	dir, seal := sealedLayout(t, "nginx-site", func(root string) {
		for from, to := range map[string]string{"usr/bin/tool": "usr/bin/another", "etc/nginx-site/small": "etc/nginx-site/twin"} {
			if err := os.Link(filepath.Join(root, from), filepath.Join(root, to)); err != nil {
				t.Fatal(err)
			}
		}
	})
	out := shell(t, dir, p.marked(t, "test: seal").text+p.marked(t, "test: hard links").text)
	switch {
	case len(out) < 4 || out[1] != seal || out[len(out)-1] != seal || out[len(out)-2] != seal:
		t.Errorf("the commands print %q, the seal is %s", out, seal)
	case out[0] == seal:
		t.Error("mkcomposefs now keeps hard links in directories: simplify the page")
	}
}

// sealedLayout builds a module with something of everything that a tree can hold in a directory
// that it returns, and seals it as publishing does.
func sealedLayout(t *testing.T, name string, more func(root string)) (dir, seal string) {
	t.Helper()
	if os.Geteuid() != 0 {
		oracle.Missing(t, "extracting a layer with its owners takes root's rights")
	}
	dir = t.TempDir()
	root := filepath.Join(dir, "root")
	for path, text := range map[string]string{
		"usr/bin/tool":           strings.Repeat("a file that is an object\n", 400),
		"etc/" + name + "/small": "a file that lies in the image\n",
		"etc/" + name + "/empty": "",
		"run/left-behind":        "by the build\n",
	} {
		path = filepath.Join(root, path)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(text), 0o640))
	}
	must(t, os.Symlink("../usr/bin/tool", filepath.Join(root, "etc", "link")))
	must(t, os.Chmod(filepath.Join(root, "usr"), 0o751))
	must(t, os.Lchown(filepath.Join(root, "etc", name), 33, 65534))
	if err := unix.Setxattr(filepath.Join(root, "usr/bin/tool"), "user.note", []byte("kept"), 0); !errors.Is(err, unix.ENOTSUP) {
		must(t, err) // without it where the file system has no such attributes, as tmpfs before Linux 6.6
	}
	if more != nil {
		more(root)
	}
	_, err := modulebuild.Build(t.Context(), modulebuild.Options{
		Manifest: []byte("schema_version: 1\nname: " + name + "\n"), Version: "1.0.0", Layout: filepath.Join(dir, name),
		FromDir: root, KeepAttributes: true, Epoch: time.Unix(1_700_000_000, 0), WorkDir: dir,
	})
	must(t, err)
	layout, err := ociimage.OpenLayout(filepath.Join(dir, name))
	must(t, err)
	defer layout.Close()
	image, err := layout.Resolve(t.Context(), ociimage.Reference{}, "")
	must(t, err)
	tree, _, err := ociimage.Pull(t.Context(), layout, image, ociimage.PullOptions{Sink: layer.Discard{}})
	must(t, err)
	digest, err := ociimage.Seal(tree)
	must(t, err)
	_, err = layout.Annotate(image, map[string]string{module.AnnotationSeal: digest.String()}, "1.0.0")
	must(t, err)
	return dir, digest.String()
}

// shell runs a page's commands and returns the lines that they print.
func shell(t *testing.T, dir, script string) []string {
	t.Helper()
	var tools []string
	for _, tool := range []string{"mkcomposefs", "jq", "zstd", "fsverity"} {
		tools = append(tools, oracle.Path(t, tool))
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+programsPath(t, tools...))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
