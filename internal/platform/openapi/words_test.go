package openapi

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/constant"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/oracle"
)

var update = flag.Bool("update", false, "write words.json")

// TestWordsAreTheSources: what the document says of types and fields, and their values, is what the sources of the wire say now.
func TestWordsAreTheSources(t *testing.T) {
	w := words{Types: map[string]string{}, Fields: map[string]string{}, Values: map[string][]string{}}
	for _, pkg := range []string{"nodeapi", "operatorapi"} {
		gather(t, pkg, &w)
	}
	want, err := json.MarshalIndent(w, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *update {
		if err := os.WriteFile("words.json", want, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile("words.json"); err != nil || !bytes.Equal(have, want) {
		t.Errorf("words.json isn't what the sources say (%v): go test ./internal/platform/openapi -update", err)
	}
	if len(w.Types) < 60 || len(w.Fields) < 100 || len(w.Values) < 10 {
		t.Errorf("only %d types, %d fields and %d sets of values", len(w.Types), len(w.Fields), len(w.Values))
	}
}

// gather reads a package's sources.
func gather(t *testing.T, pkg string, w *words) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(oracle.Root(t), "internal", pkg, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	info := &types.Info{Defs: map[*ast.Ident]types.Object{}}
	if _, err := (&types.Config{Importer: importer.ForCompiler(fset, "source", nil)}).Check(pkg, fset, files, info); err != nil {
		t.Fatal(err)
	}
	constants := map[string]string{}
	for name, object := range info.Defs {
		c, ok := object.(*types.Const)
		if !ok {
			continue
		}
		constants[name.Name] = value(c)
	}
	for _, f := range files {
		for _, d := range f.Decls {
			if g, ok := d.(*ast.GenDecl); ok {
				w.declaration(pkg, g, info, constants)
			}
		}
	}
}

// value is a constant as a sentence has it.
func value(c *types.Const) string {
	if named, ok := c.Type().(*types.Named); ok && named.Obj().Name() == "Duration" {
		if n, exact := constant.Int64Val(c.Val()); exact {
			return duration(n)
		}
	}
	if c.Val().Kind() == constant.String {
		return "`" + constant.StringVal(c.Val()) + "`"
	}
	return c.Val().ExactString()
}

func (w *words) declaration(pkg string, g *ast.GenDecl, info *types.Info, constants map[string]string) {
	for _, spec := range g.Specs {
		switch s := spec.(type) {
		case *ast.ValueSpec:
			for _, name := range s.Names {
				c, ok := info.Defs[name].(*types.Const)
				if !ok || c.Val().Kind() != constant.String {
					continue
				}
				if named, ok := c.Type().(*types.Named); ok {
					w.Values[pkg+"."+named.Obj().Name()] = append(w.Values[pkg+"."+named.Obj().Name()], constant.StringVal(c.Val()))
				}
			}
		case *ast.TypeSpec:
			fields, ok := s.Type.(*ast.StructType)
			if !ok || !s.Name.IsExported() {
				continue
			}
			names := map[string]string{}
			for _, f := range fields.Fields.List {
				for _, n := range f.Names {
					names[n.Name] = jsonName(f)
				}
			}
			path := pkg + "." + s.Name.Name
			doc := s.Doc
			if doc == nil {
				doc = g.Doc
			}
			w.Types[path] = said(doc.Text(), without(names, s.Name.Name), constants)
			for _, f := range fields.Fields.List {
				if text := said(strings.TrimSpace(f.Doc.Text()+" "+f.Comment.Text()), names, constants); text != "" {
					w.Fields[path+"."+jsonName(f)] = text
				}
			}
		}
	}
}

// without leaves out a field that is called like its type.
func without(names map[string]string, name string) map[string]string {
	names = maps.Clone(names)
	delete(names, name)
	return names
}

func jsonName(f *ast.Field) string {
	if f.Tag == nil {
		return ""
	}
	name, _, _ := strings.Cut(reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("json"), ",")
	return name
}

var goName = regexp.MustCompile(`\b[A-Z][A-Za-z0-9]*\b`)

// said puts the wire's names and numbers in the place of Go's.
func said(text string, names, constants map[string]string) string {
	return goName.ReplaceAllStringFunc(strings.Join(strings.Fields(text), " "), func(word string) string {
		if name := names[word]; name != "" && name != "-" {
			return "`" + name + "`"
		}
		if v, ok := constants[word]; ok {
			return v
		}
		return word
	})
}

// duration is one as people say it.
func duration(ns int64) string {
	for _, unit := range []struct {
		size int64
		name string
	}{{3600e9, "h"}, {60e9, "min"}, {1e9, "s"}} {
		if ns%unit.size == 0 {
			return strings.TrimSpace(constant.MakeInt64(ns/unit.size).ExactString() + " " + unit.name)
		}
	}
	return constant.MakeInt64(ns).ExactString() + " ns"
}

// TestSaid keeps Go's names out of the document.
func TestSaid(t *testing.T) {
	got := said("Message is a sentence of at most MaxTaskMessage\nbytes.", map[string]string{"Message": "message"}, map[string]string{"MaxTaskMessage": "1000"})
	if got != "`message` is a sentence of at most 1000 bytes." {
		t.Error(got)
	}
	w, err := readWords()
	if err != nil {
		t.Fatal(err)
	}
	if v := w.Values["nodeapi.TaskState"]; !slices.Contains(v, "cancelling") || len(v) != 6 {
		t.Errorf("%v", v)
	}
}
