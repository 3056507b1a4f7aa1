package arch

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/oracle"
)

// docComments returns the files of a package that carry a package comment.
func docComments(t *testing.T, p goPackage) []string {
	t.Helper()
	var with []string
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if f.Doc != nil {
			with = append(with, name)
		}
	}
	return with
}

// unfinished matches what must not be in a program that says it is done.
var unfinished = regexp.MustCompile(`TO` + `DO|FIX` + `ME|XX` + `X|not (yet )?imple` + `mented`)

func TestSourcesAreFinishedAndSmall(t *testing.T) {
	const most = 450
	root := oracle.Root(t)
	for _, p := range list(t, "./...") {
		for _, name := range p.GoFiles {
			path := filepath.Join(p.Dir, name)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			rel, _ := filepath.Rel(root, path)
			if lines := strings.Count(string(text), "\n"); lines > most {
				t.Errorf("%s has %d lines: more than %d don't fit one topic", rel, lines, most)
			}
			if found := unfinished.Find(text); found != nil {
				t.Errorf("%s says %q", rel, found)
			}
		}
	}
}

func TestModuleFileHasNoReplacement(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(oracle.Root(t), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if regexp.MustCompile(`(?m)^\s*replace\b`).Match(text) {
		t.Error("go.mod replaces a module: what is built must be what the module proxy serves")
	}
}

// TestProductsCanNotBeKilledAtAWrite: what ends a machine at a labelled operation is in no program as it
// is built for anybody, because nothing but the tests names its build tag.
func TestProductsCanNotBeKilledAtAWrite(t *testing.T) {
	const tag = "powernode_" + "killpoints"
	root := oracle.Root(t)
	for _, p := range list(t, "./internal/durable") {
		if slices.Contains(p.GoFiles, "killpoint.go") || !slices.Contains(p.GoFiles, "reach.go") {
			t.Errorf("an ordinary build of %s is of %v", p.ImportPath, p.GoFiles)
		}
	}
	allowed := []string{"internal/durable/killpoint.go", "internal/durable/reach.go"}
	for _, dir := range []string{"cmd", "internal", "packaging", "scripts", "initramfs", "Makefile"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(path)
			if rel, _ := filepath.Rel(root, path); strings.Contains(string(text), tag) && !slices.Contains(allowed, rel) {
				t.Errorf("%s names the build tag %s", rel, tag)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}
