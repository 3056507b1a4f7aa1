package faults

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// kind is a kind of request: the pattern of its path.
type kind string

// beside are the paths that are no kinds of request of their own in the cycle, and why.
var beside = map[string]string{
	nodeapi.PathTasks:          "it is the beginning of others",
	nodeapi.PathAuthorizedKeys: "it is asked where the answer to config isn't as agreed, and counts as that",
	nodeapi.PathRegistryAccess: "it is asked while a module is pulled from another registry than the platform's own, and nothing is pulled here",
	nodeapi.PathClaim:          "a machine with a token claims nothing; the call is made in the loop that enroll's is made in",
}

// module is the one path that isn't a constant of its own.
const module = kind(nodeapi.PathModules + "/{module}")

// endpoints returns every kind of request that the wire knows: the constants of package nodeapi that begin with Path, but for those beside the cycle. Whoever
// adds one has the node ask it in the cycle, or says here why not.
func endpoints(t testing.TB) []kind {
	t.Helper()
	texts := map[string]string{}
	files, err := filepath.Glob("../../internal/nodeapi/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("the wire's files: %v, %v", files, err)
	}
	var specs []*ast.ValueSpec
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if d, ok := d.(*ast.GenDecl); ok && d.Tok == token.CONST {
				for _, s := range d.Specs {
					specs = append(specs, s.(*ast.ValueSpec)) //nolint:errcheck,forcetypeassert // constants are nothing else
				}
			}
		}
	}
	// One may be made of another that comes later.
	for more := true; more; {
		more = false
		for _, s := range specs {
			for i, name := range s.Names {
				if text, ok := textOf(s, i, texts); ok && texts[name.Name] == "" && text != "" {
					texts[name.Name], more = text, true
				}
			}
		}
	}
	kinds := []kind{module}
	for name, text := range texts {
		if strings.HasPrefix(name, "Path") && beside[text] == "" {
			kinds = append(kinds, kind(text))
		}
	}
	slices.Sort(kinds)
	known := slices.Collect(maps.Values(texts))
	for path := range beside {
		if !slices.Contains(known, path) {
			t.Errorf("%s is no path of the wire", path)
		}
	}
	if len(kinds) < 16 {
		t.Fatalf("only %d kinds of request were found: %v", len(kinds), kinds)
	}
	return kinds
}

// textOf returns the text of a constant that is made of literals and of others that are known.
func textOf(s *ast.ValueSpec, i int, known map[string]string) (string, bool) {
	if i >= len(s.Values) {
		return "", false
	}
	var of func(e ast.Expr) (string, bool)
	of = func(e ast.Expr) (string, bool) {
		switch e := e.(type) {
		case *ast.BasicLit:
			text, err := strconv.Unquote(e.Value)
			return text, e.Kind == token.STRING && err == nil
		case *ast.Ident:
			return known[e.Name], known[e.Name] != ""
		case *ast.BinaryExpr:
			x, ok := of(e.X)
			y, also := of(e.Y)
			return x + y, ok && also && e.Op == token.ADD
		}
		return "", false
	}
	return of(s.Values[i])
}

// name is what a test of this kind of request is called.
func (k kind) name() string {
	return strings.NewReplacer("/{task}/", "-", "/{module}", "-one", "/", "-").Replace(strings.TrimPrefix(string(k), nodeapi.Base+"/"))
}

// kindOf returns the kind of a request; ok says that there is one.
func kindOf(kinds []kind, path string) (k kind, ok bool) {
	if path == nodeapi.PathAuthorizedKeys {
		return nodeapi.PathConfig, true
	}
	segments := strings.Split(path, "/")
	i := slices.IndexFunc(kinds, func(k kind) bool {
		pattern := strings.Split(string(k), "/")
		return slices.EqualFunc(pattern, segments, func(p, s string) bool { return p == s || s != "" && strings.HasPrefix(p, "{") })
	})
	if i < 0 {
		return "", false
	}
	return kinds[i], true
}
