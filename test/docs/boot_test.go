package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/powernode/powernode-agent/internal/oracle"
)

// TestStages: docs/boot.md has a section for each stage of the boot, under the stage's name and in
// the order in which they run.
func TestStages(t *testing.T) {
	_, section, _ := strings.Cut(strings.Join(findPage(t, "docs/boot.md").prose, "\n"), "\n## The stages\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var described []string
	for line := range strings.SplitSeq(section, "\n") {
		if name, ok := strings.CutPrefix(line, "### "); ok {
			described = append(described, name)
		}
	}
	want := append(stages(t), "Handing over")
	if !slices.Equal(described, want) {
		t.Errorf("the page describes %v, the boot runs %v", described, want)
	}
}

// stages reads the names that the method stages of package boot gives.
func stages(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(oracle.Root(t), "internal", "boot", "config.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, decl := range file.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok || f.Name.Name != "stages" {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				name, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Error(err)
				}
				names = append(names, name)
			}
			return true
		})
	}
	if len(names) == 0 {
		t.Fatal("internal/boot/config.go has no stages any more")
	}
	return names
}

// TestBootFlags: the table of flags in docs/boot.md has those that boot takes.
func TestBootFlags(t *testing.T) {
	_, section, _ := strings.Cut(strings.Join(findPage(t, "docs/boot.md").prose, "\n"), "\n## Flags\n")
	section, _, _ = strings.Cut(section, "\n### ")
	var described []string
	for _, cell := range firstCells(section) {
		flag, _, _ := strings.Cut(cell, " ")
		if name := strings.TrimPrefix(flag, "--"); name != "" {
			described = append(described, name)
		}
	}
	boot, _, err := newTree("powernode-agent").Find([]string{"boot"})
	if err != nil {
		t.Fatal(err)
	}
	var known []string
	boot.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
	slices.Sort(described)
	slices.Sort(known)
	if !slices.Equal(described, known) {
		t.Errorf("the page describes %v, boot takes %v", described, known)
	}
}
