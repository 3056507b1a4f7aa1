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

	"github.com/powernode/powernode-agent/internal/oracle"
)

// TestFloors: the table of floors in docs/architecture.md is the list that internal/arch tests,
// floor by floor.
func TestFloors(t *testing.T) {
	text := strings.Join(findPage(t, "docs/architecture.md").prose, "\n")
	_, table, ok := strings.Cut(text, "\n| floor | packages |")
	if !ok {
		t.Fatal("the page has lost its table of floors")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	var described [][]string
	for _, row := range strings.Split(table, "\n")[2:] {
		cells := strings.Split(row, "|")
		var floor []string
		for _, span := range codeForm.FindAllString(cells[2], -1) {
			floor = append(floor, strings.Trim(span, "`"))
		}
		slices.Sort(floor)
		described = append(described, floor)
	}
	slices.Reverse(described)
	floors := testedFloors(t)
	if len(described) != len(floors) {
		t.Fatalf("%d floors are described, %d are tested", len(described), len(floors))
	}
	for i := range floors {
		if !slices.Equal(described[i], floors[i]) {
			t.Errorf("floor %d from below holds %v, the page says %v", i+1, floors[i], described[i])
		}
	}
}

// testedFloors reads the variable layers of internal/arch's test, lowest floor first.
func testedFloors(t *testing.T) [][]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(oracle.Root(t), "internal", "arch", "arch_test.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	layers := file.Scope.Lookup("layers")
	if layers == nil {
		t.Fatal("internal/arch has no variable layers any more")
	}
	value, ok := layers.Decl.(*ast.ValueSpec).Values[0].(*ast.CompositeLit)
	if !ok {
		t.Fatal("the variable layers is no list any more")
	}
	var floors [][]string
	for _, element := range value.Elts {
		var floor []string
		for _, name := range element.(*ast.CompositeLit).Elts {
			text, err := strconv.Unquote(name.(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			floor = append(floor, strings.TrimPrefix(text, "internal/"))
		}
		slices.Sort(floor)
		floors = append(floors, floor)
	}
	return floors
}
