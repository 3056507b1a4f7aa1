package mounttest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fsverity"
)

// Image is a root image with its objects, made by the reference implementation.
type Image struct {
	Path    string // the image file
	Objects string // the object store's directory
	Digest  fsverity.Digest
}

// Seal makes an image in dir of a tree of files, given by path with their content, all executable;
// a path that ends in a slash is a directory. tool is the path of mkcomposefs (oracle.Path).
func Seal(t testing.TB, tool, dir string, files map[string]string) Image {
	t.Helper()
	source := t.TempDir()
	for name, content := range files {
		path := filepath.Join(source, name)
		parent := filepath.Dir(path)
		if strings.HasSuffix(name, "/") {
			parent = path
		}
		if err := os.MkdirAll(parent, 0o755); err != nil {
			t.Fatal(err)
		}
		if parent == path {
			continue
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return SealDir(t, tool, dir, source)
}

// SealDir makes an image in dir of the tree in source.
func SealDir(t testing.TB, tool, dir, source string) Image {
	t.Helper()
	return run(t, tool, dir, "--digest-store="+filepath.Join(dir, "objects"), source)
}

// SealDump makes an image in dir of a dump in composefs's text format. It stores no objects.
func SealDump(t testing.TB, tool, dir, dump string) Image {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dump")
	if err := os.WriteFile(path, []byte(dump), 0o644); err != nil {
		t.Fatal(err)
	}
	return run(t, tool, dir, "--from-file", path)
}

func run(t testing.TB, tool, dir string, args ...string) Image {
	t.Helper()
	i := Image{Path: filepath.Join(dir, "root.erofs"), Objects: filepath.Join(dir, "objects")}
	if err := os.MkdirAll(i.Objects, 0o755); err != nil {
		t.Fatal(err)
	}
	args = append([]string{"--min-version=1", "--print-digest"}, append(args, i.Path)...)
	out, err := exec.CommandContext(t.Context(), tool, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("mkcomposefs: %v: %s", err, out)
	}
	if i.Digest, err = fsverity.ParseDigest(strings.TrimSpace(string(out))); err != nil {
		t.Fatal(err)
	}
	return i
}
