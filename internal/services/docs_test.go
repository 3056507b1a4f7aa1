package services

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/oracle"
)

// TestJSONIsDocumented: the tables of docs/services.md have exactly the keys that are printed and written.
func TestJSONIsDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(oracle.Root(t), "docs", "services.md"))
	if err != nil {
		t.Fatal(err)
	}
	for name, shape := range map[string]reflect.Type{"init": reflect.TypeFor[Report](), "health": reflect.TypeFor[Health]()} {
		_, table, ok := strings.Cut(string(text), "<!-- keys: "+name+" -->\n| key | meaning |\n|---|---|\n")
		if !ok {
			t.Errorf("there is no table of %s", name)
			continue
		}
		table, _, _ = strings.Cut(table, "\n\n")
		var have []string
		for row := range strings.Lines(table) {
			for _, key := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(strings.Split(row, "|")[1], -1) {
				have = append(have, key[1])
			}
		}
		want := keysOf(shape, "")
		slices.Sort(have)
		slices.Sort(want)
		if diff := cmp.Diff(want, have); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

// keysOf returns the keys of a document. What has a table of its own is one key.
func keysOf(shape reflect.Type, prefix string) []string {
	var out []string
	for i := range shape.NumField() {
		f := shape.Field(i)
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		of := f.Type
		switch {
		case of.Kind() == reflect.Slice && of.Elem().Kind() == reflect.Struct:
			out = append(out, keysOf(of.Elem(), prefix+key+"[].")...)
		case of.Kind() == reflect.Struct && of != reflect.TypeFor[time.Time]():
			out = append(out, keysOf(of, prefix+key+".")...)
		default:
			out = append(out, prefix+key)
		}
	}
	return out
}
