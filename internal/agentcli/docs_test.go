package agentcli

import (
	"encoding"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/aftercare"
	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/mount"
	"github.com/powernode/powernode-agent/internal/oracle"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/store"
)

// shapes are the JSON documents of docs/boot.md, by the names that its tables and examples bear.
// A shape inside another is described once, by its own table.
var shapes = map[string]reflect.Type{
	"boot.json":         reflect.TypeFor[boot.Facts](),
	"status":            reflect.TypeFor[statusDoc](),
	"process":           reflect.TypeFor[aftercare.Process](),
	"owner":             reflect.TypeFor[ownerDoc](),
	"introspect":        reflect.TypeFor[introspectDoc](),
	"verify":            reflect.TypeFor[verifyDoc](),
	"update":            reflect.TypeFor[changeDoc](),
	"plan":              reflect.TypeFor[change.Plan](),
	"aftercare":         reflect.TypeFor[aftercare.Plan](),
	"sync":              reflect.TypeFor[syncDoc](),
	"damage":            reflect.TypeFor[reconcile.Damage](),
	"generations":       reflect.TypeFor[generationsDoc](),
	"generation":        reflect.TypeFor[generationDoc](),
	"gc":                reflect.TypeFor[gcDoc](),
	"enroll":            reflect.TypeFor[enrollDoc](),
	"credentials":       reflect.TypeFor[credentialsDoc](),
	"generation module": reflect.TypeFor[store.GenerationModule](),
	"mount id":          reflect.TypeFor[mount.ID](),
	"ability":           reflect.TypeFor[mount.Ability](),
}

// TestJSONIsDocumented: each table of docs/boot.md has exactly the keys that the program prints,
// and its examples no others.
func TestJSONIsDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(oracle.Root(t), "docs", "boot.md"))
	if err != nil {
		t.Fatal(err)
	}
	tables := regexp.MustCompile(`<!-- keys: (.*) -->\n\| key \| meaning \|\n\|---\|---\|\n((?:\|.*\n)+)`).FindAllSubmatch(text, -1)
	found := make(map[string][]string)
	for _, m := range tables {
		var keys []string
		for row := range strings.Lines(string(m[2])) {
			for _, span := range regexp.MustCompile("`[^`]+`").FindAllString(strings.Split(row, "|")[1], -1) {
				keys = append(keys, strings.Trim(span, "`"))
			}
		}
		slices.Sort(keys)
		found[string(m[1])] = keys
	}
	for name, shape := range shapes {
		want := keysOf(shape)
		if have := found[name]; !slices.Equal(have, want) {
			t.Errorf("%s: missing in the table: %v; in the table only: %v", name, without(want, have), without(have, want))
		}
		delete(found, name)
	}
	for name := range found {
		t.Errorf("a table of %q, which the test doesn't know", name)
	}
	for _, m := range regexp.MustCompile("(?s)<!-- example: (.*?) -->\n```json\n(.*?)```").FindAllSubmatch(text, -1) {
		shape, ok := shapes[string(m[1])]
		if !ok {
			t.Errorf("an example of %q, which the test doesn't know", m[1])
			continue
		}
		var doc any
		if err := json.Unmarshal(m[2], &doc); err != nil {
			t.Errorf("the example of %s: %v", m[1], err)
		}
		known := allKeys(shape, "", nil)
		for _, key := range keysIn(doc, "") {
			if !slices.Contains(known, key) {
				t.Errorf("the example of %s has the key %s, which the program doesn't print", m[1], key)
			}
		}
	}
}

// keysOf returns the paths of a shape's values, down to those that have a table of their own.
func keysOf(shape reflect.Type) []string {
	others := slices.DeleteFunc(slices.Collect(maps.Values(shapes)), func(o reflect.Type) bool { return o == shape })
	keys := allKeys(shape, "", others)
	slices.Sort(keys)
	return keys
}

// allKeys returns the paths of all values below t: "a", "a.b", "a[].b". It doesn't look into maps,
// types that print themselves, and those of leaves.
func allKeys(t reflect.Type, path string, leaves []reflect.Type) []string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	text, marshaler := reflect.TypeFor[encoding.TextMarshaler](), reflect.TypeFor[json.Marshaler]()
	switch {
	case slices.Contains(leaves, t):
		return []string{path}
	case t.Implements(text) || t.Implements(marshaler):
	case t.Kind() == reflect.Slice && holdsStruct(t.Elem()):
		return allKeys(t.Elem(), path+"[]", leaves)
	case t.Kind() == reflect.Struct:
		var keys []string
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			if !t.Field(i).IsExported() || name == "-" {
				continue
			}
			at := strings.TrimPrefix(path+"."+name, ".")
			if t.Field(i).Anonymous && name == "" {
				at = path
			}
			keys = append(keys, allKeys(t.Field(i).Type, at, leaves)...)
		}
		return keys
	}
	return []string{path}
}

func holdsStruct(t reflect.Type) bool {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Kind() == reflect.Struct
}

// keysIn returns the paths of the values of a decoded document.
func keysIn(doc any, path string) []string {
	switch v := doc.(type) {
	case map[string]any:
		var keys []string
		for name, value := range v {
			keys = append(keys, keysIn(value, strings.TrimPrefix(path+"."+name, "."))...)
		}
		return keys
	case []any:
		var keys []string
		for _, value := range v {
			if _, object := value.(map[string]any); object {
				keys = append(keys, keysIn(value, path+"[]")...)
			} else {
				keys = append(keys, path)
			}
		}
		return keys
	default:
		return []string{path}
	}
}

func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}
