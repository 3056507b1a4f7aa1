package arch

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
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
