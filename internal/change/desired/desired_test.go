package desired

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/reconcile"
	"github.com/powernode/powernode-agent/internal/store"
)

func attached(name string) Attached {
	return Attached{Name: name, Version: "1", Repository: "example.org/modules/" + name, Digest: "sha256:" + strings.Repeat("a", 64), Priority: 7}
}

func listOf(names ...string) *nodeapi.ModuleList {
	l := &nodeapi.ModuleList{}
	for _, n := range names {
		l.Modules = append(l.Modules, nodeapi.Module{ID: "id-" + n, Name: n, Version: "1"})
	}
	return l
}

func names(modules []reconcile.Assigned) string {
	var all []string
	for _, m := range modules {
		all = append(all, m.Name+" "+string(m.Origin))
	}
	return strings.Join(all, ", ")
}

func TestFollow(t *testing.T) {
	l := Local{}.Attach(attached("tool")).Attach(attached("app")).Detach("site").Detach("other")
	w := Follow(listOf("base", "app", "site"), l)
	if got := names(w.Modules); got != "base platform, app local, tool local" {
		t.Error(got)
	}
	if !slices.Equal(w.Detached, []string{"site"}) || len(w.Remarks) != 1 || !strings.Contains(w.Remarks[0], "module app is attached here") {
		t.Errorf("%+v", w)
	}
	l = l.Follow("site").Follow("app").Detach("tool").Follow("tool").Follow("other")
	if got := names(Follow(listOf("base", "app", "site"), l).Modules); got != "base platform, app platform, site platform" || !l.Equal(Local{}) {
		t.Errorf("%s, %+v", got, l)
	}
}

func TestGuard(t *testing.T) {
	for _, c := range []struct {
		current, wanted string
		removeMost      bool
		refused         string
	}{
		{"", "a", false, ""},
		{"a b", "a", false, ""},
		{"a b c", "a", false, "2 of 3 modules would go at once (b, c)"},
		{"a b c", "a", true, ""},
		{"a b c", "a x y z", false, "2 of 3"},
		{"a b c", "", true, "no module would be left of 3"},
		{"a", "b", false, "1 of 1"},
		{"a b c d e f g h i j k l", "l", false, "and 3 more"},
	} {
		var current []store.GenerationModule
		for n := range strings.FieldsSeq(c.current) {
			current = append(current, store.GenerationModule{Name: n})
		}
		err := Guard(current, reconcile.AsAssigned(listOf(strings.Fields(c.wanted)...)), c.removeMost)
		switch {
		case c.refused == "" && err != nil:
			t.Errorf("%q to %q: %v", c.current, c.wanted, err)
		case c.refused != "" && (fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), c.refused)):
			t.Errorf("%q to %q: %v, want %q", c.current, c.wanted, err, c.refused)
		}
	}
}

// What is attached and detached in any order names each module once, and survives the file.
func TestWordsSurviveTheFile(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		var l Local
		last := make(map[string]int)
		for range rapid.IntRange(0, 12).Draw(t, "words") {
			name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name")
			switch last[name] = rapid.IntRange(0, 2).Draw(t, "word"); last[name] {
			case 0:
				l = l.Follow(name)
			case 1:
				l = l.Attach(attached(name))
			case 2:
				l = l.Detach(name)
			}
		}
		if err := WriteLocal(dir, l, nil); err != nil {
			t.Fatal(err)
		}
		got, err := ReadLocal(dir)
		if err != nil || !got.Equal(l) {
			t.Fatalf("%v: %s", err, cmp.Diff(l, got))
		}
		for name, word := range last {
			_, on := got.Has(name)
			if on != (word == 1) || got.Without(name) != (word == 2) {
				t.Fatalf("%s: %+v", name, got)
			}
		}
	})
}

func TestReadRefuses(t *testing.T) {
	good := `{"attached":[{"name":"a","version":"1","repository":"example.org/a","digest":"sha256:` + strings.Repeat("a", 64) + `","priority":7}]}`
	for name, text := range map[string]string{
		"no JSON":                "{",
		"a further field":        `{"other":1}`,
		"a path as name":         strings.Replace(good, `"a"`, `"../a"`, 1),
		"no digest":              strings.Replace(good, "sha256:", "md5:", 1),
		"a tag":                  strings.Replace(good, "example.org/a", "example.org/a:latest", 1),
		"attached and detached":  strings.Replace(good, "]}", `],"detached":["a"]}`, 1),
		"twice":                  `{"detached":["a","a"]}`,
		"a priority below 0":     strings.Replace(good, "7", "-7", 1),
		"too many":               `{"detached":["a` + strings.Repeat(`a","a`, 400) + `"]}`,
		"more than it may be":    `{"detached":["` + strings.Repeat("a", localMax) + `"]}`,
		"no version, no subject": strings.Replace(good, `"version":"1",`, "", 1),
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, LocalName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadLocal(dir); fault.KindOf(err) != fault.Broken || !strings.Contains(err.Error(), LocalName) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if l, err := parseLocal([]byte(good)); err != nil || len(l.Attached) != 1 {
		t.Error(l, err)
	}
}

func FuzzParseLocal(f *testing.F) {
	f.Add([]byte(`{"attached":[{"name":"a","version":"1","repository":"example.org/a","digest":"sha256:` + strings.Repeat("a", 64) + `","priority":7}],"detached":["b"]}`))
	f.Add([]byte(`{"detached":["b","c"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := parseLocal(data)
		if err != nil {
			return
		}
		dir := t.TempDir()
		if err := WriteLocal(dir, l, nil); err != nil {
			t.Fatalf("%+v was read and can't be written: %v", l, err)
		}
		if again, err := ReadLocal(dir); err != nil || !again.Equal(l) {
			t.Fatalf("%+v became %+v, %v", l, again, err)
		}
	})
}
