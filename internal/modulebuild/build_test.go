package modulebuild

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/layer"
	"github.com/powernode/powernode-agent/internal/module"
	"github.com/powernode/powernode-agent/internal/ociimage"
	"github.com/powernode/powernode-agent/internal/oracle"
	"github.com/powernode/powernode-agent/internal/tree"
)

const siteManifest = "schema_version: 1\nname: site\n"

// write makes files; a path that ends in a slash is a directory.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for path, text := range files {
		full := filepath.Join(dir, path)
		if strings.HasSuffix(path, "/") {
			if err := os.MkdirAll(full, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func mustBuild(t *testing.T, o Options) *Result {
	t.Helper()
	if o.Version == "" {
		o.Version = "1"
	}
	if o.WorkDir == "" {
		o.WorkDir = t.TempDir()
	}
	r, err := Build(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// pull reads a layout's image and tree.
func pull(t *testing.T, dir string) (*ociimage.Image, *tree.Node) {
	t.Helper()
	layout, err := ociimage.OpenLayout(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer layout.Close()
	image, err := layout.Resolve(context.Background(), ociimage.Reference{}, "")
	if err != nil {
		t.Fatal(err)
	}
	root, _, err := ociimage.Pull(context.Background(), layout, image, ociimage.PullOptions{Sink: layer.Discard{}})
	if err != nil {
		t.Fatal(err)
	}
	return image, root
}

// paths lists the names in a tree that aren't directories.
func paths(root *tree.Node) []string {
	var all []string
	for path, n := range root.Walk() {
		if n.Kind != tree.Directory {
			all = append(all, path)
		}
	}
	return all
}

func TestFromDirectory(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"etc/app/a.conf": "a", "etc/app/b.conf": strings.Repeat("b", 100), "etc/other": "o", "srv/www/index.html": "hi", "root/.profile": "p", "empty/": ""})
	if err := os.Chmod(filepath.Join(dir, "srv/www/index.html"), 0o664); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(filepath.Join(dir, "etc/app/a.conf"), 0o4775); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a.conf", filepath.Join(dir, "etc/app/link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "etc/app/b.conf"), filepath.Join(dir, "etc/app/hard")); err != nil {
		t.Fatal(err)
	}
	manifest := siteManifest + "file_spec: [/etc/app, /srv/www/**, /root/.profile]\nmask: [\"*.bak\"]\n"
	write(t, dir, map[string]string{"etc/app/x.bak": "old"})
	out := filepath.Join(t.TempDir(), "sub", "layout")
	epoch := time.Unix(1700000000, 5)
	var stages []string
	r := mustBuild(t, Options{
		Manifest: []byte(manifest), Version: "1.0+x", FromDir: dir, Layout: out, Epoch: epoch,
		Stage: func(s string) { stages = append(stages, s) },
	})
	image, root := pull(t, out)
	want := []string{"etc/app/a.conf", "etc/app/b.conf", "etc/app/hard", "etc/app/link", "root/.profile", "srv/www/index.html", "usr/lib/powernode/modules/site/manifest.yaml"}
	if diff := cmp.Diff(want, paths(root)); diff != "" {
		t.Error(diff)
	}
	for path, n := range root.Walk() {
		wantMode := uint16(0o644)
		switch {
		case path == "root":
			wantMode = 0o700
		case n.Kind == tree.Symlink:
			wantMode = 0o777
		case n.Kind == tree.Directory || path == "etc/app/a.conf":
			wantMode = 0o755
		}
		if path != "" && (n.Mode != wantMode || n.UID != 0 || n.GID != 0 || n.Mtime != (tree.Time{Sec: 1700000000})) {
			t.Errorf("%s: mode %o of %d:%d at %v", path, n.Mode, n.UID, n.GID, n.Mtime)
		}
	}
	if root.Lookup("etc/app/b.conf") != root.Lookup("etc/app/hard") {
		t.Error("the hard link is lost")
	}
	wantAnnotations := map[string]string{
		module.AnnotationName: "site", module.AnnotationVersion: "1.0+x",
		"org.opencontainers.image.title": "site", "org.opencontainers.image.created": "2023-11-14T22:13:20Z",
	}
	if diff := cmp.Diff(wantAnnotations, image.Annotations); diff != "" {
		t.Error(diff)
	}
	if got := image.Labels[module.LabelManifest]; got != manifest {
		t.Errorf("the label holds %q", got)
	}
	if image.Architecture != ociimage.AnyArchitecture || r.Architecture != image.Architecture || r.Digest != image.Digest.String() || len(stages) == 0 {
		t.Errorf("%+v, stages %q", r, stages)
	}
	if _, err := ociimage.Seal(root); err != nil {
		t.Error(err)
	}
}

func TestReproducible(t *testing.T) {
	build := func(umask os.FileMode) string {
		dir := t.TempDir()
		write(t, dir, map[string]string{"srv/a": "a", "srv/b/c": "c"})
		if err := os.Chmod(filepath.Join(dir, "srv/b"), umask); err != nil {
			t.Fatal(err)
		}
		if err := unix.Setxattr(filepath.Join(dir, "srv/a"), "user.note", []byte("mine"), 0); err != nil {
			t.Log(err) // not every file system has them
		}
		return mustBuild(t, Options{Manifest: []byte(siteManifest), FromDir: dir, Layout: filepath.Join(t.TempDir(), "l")}).Digest
	}
	if a, b := build(0o775), build(0o700); a != b {
		t.Errorf("%s, then %s", a, b)
	}
}

func TestKeepAttributes(t *testing.T) {
	if os.Geteuid() != 0 {
		oracle.Missing(t, "changing owners takes root's rights")
	}
	dir := t.TempDir()
	write(t, dir, map[string]string{"srv/a": "a", "srv/late": "l"})
	a := filepath.Join(dir, "srv/a")
	for _, err := range []error{
		os.Chown(a, 1000, 2000), unix.Chmod(a, 0o4711), os.Chtimes(a, time.Time{}, time.Unix(0, 0)),
		unix.Setxattr(a, "user.note", []byte("mine"), 0), unix.Mkfifo(filepath.Join(dir, "srv/fifo"), 0o600),
		unix.Setxattr(a, "trusted.note", []byte("not for modules"), 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(socket)
	if err := unix.Bind(socket, &unix.SockaddrUnix{Name: filepath.Join(dir, "srv/socket")}); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "l")
	r := mustBuild(t, Options{Manifest: []byte(siteManifest), FromDir: dir, KeepAttributes: true, Layout: out, Epoch: time.Unix(1600000000, 0)})
	_, root := pull(t, out)
	n := root.Lookup("srv/a")
	if n.UID != 1000 || n.GID != 2000 || n.Mode != 0o4711 || n.Mtime.Sec != 0 || len(n.Xattrs) != 1 || n.Xattrs[0].Name != "user.note" {
		t.Errorf("%+v", n)
	}
	if late := root.Lookup("srv/late"); late.Mtime.Sec != 1600000000 {
		t.Errorf("a later time became %d", late.Mtime.Sec)
	}
	if root.Lookup("srv/fifo").Kind != tree.FIFO || root.Lookup("srv/socket") != nil {
		t.Error("the pipe or the socket came out wrong")
	}
	if diff := cmp.Diff([]string{"srv/socket"}, r.Skipped); diff != "" {
		t.Error(diff)
	}
}

func TestReplaceLayout(t *testing.T) {
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "l")
	write(t, dir, map[string]string{"srv/a": "a"})
	o := Options{Manifest: []byte(siteManifest), Version: "1", FromDir: dir, Layout: out, WorkDir: t.TempDir()}
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	first := mustBuild(t, o) // an empty directory is as good as none
	if _, err := Build(context.Background(), o); err == nil || !strings.Contains(err.Error(), "not empty") || !strings.Contains(fault.HintOf(err), "--force") {
		t.Errorf("got %v", err)
	}
	write(t, dir, map[string]string{"srv/b": "b"})
	o.Replace = true
	if second := mustBuild(t, o); second.Digest == first.Digest {
		t.Error("nothing changed")
	}
	if _, root := pull(t, out); root.Lookup("srv/b") == nil {
		t.Error("the layout is the old one")
	}
	if entries, _ := os.ReadDir(filepath.Dir(out)); len(entries) != 1 {
		t.Errorf("debris: %v", entries)
	}
	// What is no layout is not replaced.
	o.Layout = t.TempDir()
	write(t, o.Layout, map[string]string{"precious": "p"})
	if _, err := Build(context.Background(), o); err == nil || fault.KindOf(err) != fault.Refuse {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(o.Layout, "precious")); err != nil {
		t.Error(err)
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"srv/a": "a"})
	file := filepath.Join(dir, "srv/a")
	packages := "schema_version: 1\nname: site\npackage_spec: [nginx]\n"
	tests := []struct {
		name     string
		manifest string
		change   func(*Options)
		want     string
	}{
		{"a bad manifest", "name: x\n", func(*Options) {}, "missing"},
		{"no version", siteManifest, func(o *Options) { o.Version = "" }, "there is no version"},
		{"a bad version", siteManifest, func(o *Options) { o.Version = "a b" }, "version"},
		{"no layout", siteManifest, func(o *Options) { o.Layout = "" }, "no place to put it"},
		{"a layout that is a file", siteManifest, func(o *Options) { o.Layout = file }, "write to the layout"},
		{"nothing to build", siteManifest, func(o *Options) { o.FromDir = "" }, "nothing to build it from"},
		{"packages and a directory", packages, func(*Options) {}, "a directory is named as well"},
		{"a base for a directory", siteManifest, func(o *Options) { o.Bases = []string{dir} }, "needs no base"},
		{"no directory", siteManifest, func(o *Options) { o.FromDir = filepath.Join(dir, "nothing") }, "no such file"},
		{"a file as the directory", siteManifest, func(o *Options) { o.FromDir = file }, "not a directory"},
		{"no file left", siteManifest + "file_spec: [/opt]\n", func(*Options) {}, "no file is left"},
		{"an unknown variant", packages, func(o *Options) { o.FromDir, o.Variant = "", "huge" }, "variant"},
		{"a suite that is an option", packages, func(o *Options) { o.FromDir, o.Suite = "", "--x" }, "not a name"},
		{"pins for another builder", siteManifest + "build: {k3s_version: v1}\n", func(*Options) {}, "pins what this builder"},
		{"no directory to work in", siteManifest, func(o *Options) { o.WorkDir = filepath.Join(dir, "nothing") }, "no such file"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := Options{Manifest: []byte(test.manifest), Version: "1", FromDir: dir, Layout: filepath.Join(t.TempDir(), "l"), WorkDir: t.TempDir()}
			test.change(&o)
			_, err := Build(context.Background(), o)
			if err == nil {
				t.Fatal("built")
			}
			if !strings.Contains(err.Error(), test.want) || fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Input || fault.HintOf(err) == "" {
				t.Errorf("%v (%s, area %d, hint %q), want %q", err, fault.KindOf(err), fault.AreaOf(err), fault.HintOf(err), test.want)
			}
			if entries, _ := os.ReadDir(o.WorkDir); len(entries) != 0 {
				t.Errorf("debris: %v", entries)
			}
		})
	}
}

func TestCancelled(t *testing.T) {
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "l")
	write(t, dir, map[string]string{"srv/a": strings.Repeat("a", 1000)})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Build(ctx, Options{Manifest: []byte(siteManifest), Version: "1", FromDir: dir, Layout: out, WorkDir: t.TempDir()}); err == nil {
		t.Fatal("built")
	}
	if entries, _ := os.ReadDir(filepath.Dir(out)); len(entries) != 0 {
		t.Errorf("debris: %v", entries)
	}
}

func TestArchitectureOfPrograms(t *testing.T) {
	program := func(machine byte) string {
		return "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 11) + string([]byte{machine, 0}) + strings.Repeat("\x00", 60)
	}
	for name, test := range map[string]struct {
		files map[string]string
		asked string
		want  string
	}{
		"none":      {map[string]string{"a": strings.Repeat("x", 100)}, "", "all"},
		"arm":       {map[string]string{"bin/a": program(183), "bin/b": program(183)}, "", "arm64"},
		"asked for": {map[string]string{"bin/a": program(183)}, "riscv64", "riscv64"},
	} {
		dir, out := t.TempDir(), filepath.Join(t.TempDir(), "l")
		write(t, dir, test.files)
		if r := mustBuild(t, Options{Manifest: []byte(siteManifest), FromDir: dir, Layout: out, Architecture: test.asked}); r.Architecture != test.want {
			t.Errorf("%s: %s, want %s", name, r.Architecture, test.want)
		}
	}
}
