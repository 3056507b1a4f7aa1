package module

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/powernode/powernode-agent/internal/fault"
)

func TestGlob(t *testing.T) {
	type want struct {
		path           string
		dir            bool
		matches, cover bool
	}
	tests := []struct {
		glob  string
		wants []want
	}{
		{"/opt/x", []want{
			{"opt/x", false, true, true},
			{"opt/x", true, true, true},
			{"opt/x/a", false, false, true},
			{"opt/x/a/b/c", false, false, true},
			{"opt", true, false, false},
			{"opt/xy", false, false, false},
			{"srv/opt/x", false, false, false},
			{"", true, false, false},
		}},
		{"/etc/nginx/**", []want{
			{"etc/nginx", true, false, false},
			{"etc/nginx/a", false, true, true},
			{"etc/nginx/a/b", false, true, true},
			{"etc", true, false, false},
			{"etc/nginx2/a", false, false, false},
		}},
		{"/**", []want{{"a", false, true, true}, {"a/b/c", true, true, true}, {"", true, false, false}}},
		{"**", []want{{"a", false, true, true}, {"a/b/c", true, true, true}, {"", true, false, false}}},
		{"/**/**/a/**/**", []want{{"a/b", false, true, true}, {"a", true, false, false}, {"x/a/b", false, true, true}}},
		{"/var/log/*.log", []want{
			{"var/log/a.log", false, true, true},
			{"var/log/.log", false, true, true},
			{"var/log/a/b.log", false, false, false},
			{"var/log/a.log/b", false, false, true},
			{"var/log/a.logs", false, false, false},
		}},
		{"*.pyc", []want{{"a.pyc", false, true, true}, {"a/b/c.pyc", false, true, true}, {"a/b.pyc/c", false, false, true}, {"a.py", false, false, false}}},
		{"etc/nginx", []want{{"etc/nginx", true, true, true}, {"srv/etc/nginx", true, true, true}, {"etc/x/nginx", true, false, false}}},
		{"/usr/**/doc", []want{
			{"usr/doc", true, true, true},
			{"usr/a/doc", true, true, true},
			{"usr/a/b/doc", true, true, true},
			{"usr/a/doc/x", false, false, true},
			{"usr/docs", true, false, false},
			{"doc", true, false, false},
		}},
		{"/a/**/b/**/c", []want{
			{"a/b/c", false, true, true}, {"a/x/b/y/c", false, true, true}, {"a/b/b/c/c", false, true, true}, {"a/c/b", false, false, false},
		}},
		{"cache/", []want{{"cache", false, false, false}, {"cache", true, true, true}, {"a/cache/b", false, false, true}}},
		{"/a/**/", []want{{"a/b", false, false, false}, {"a/b", true, true, true}, {"a/b/c", false, false, true}, {"a", true, false, false}}},
		{"/f?le", []want{{"file", false, true, true}, {"fle", false, false, false}, {"fäle", false, true, true}, {"f\xffle", false, true, true}, {"f/le", false, false, false}}},
		{"/[a-cx]1", []want{{"a1", false, true, true}, {"c1", false, true, true}, {"x1", false, true, true}, {"d1", false, false, false}}},
		{"/[!a-c]", []want{{"d", false, true, true}, {"a", false, false, false}, {"\xff", false, true, true}}},
		{"/[^a]", []want{{"b", false, true, true}, {"a", false, false, false}}},
		{"/[]a]", []want{{"]", false, true, true}, {"a", false, true, true}, {"b", false, false, false}}},
		{"/[a-]", []want{{"-", false, true, true}, {"a", false, true, true}, {"b", false, false, false}}},
		{`/[\]x]`, []want{{"]", false, true, true}, {"x", false, true, true}, {`\`, false, false, false}}},
		{`/\*`, []want{{"*", false, true, true}, {"a", false, false, false}}},
		{`/\[x`, []want{{"[x", false, true, true}}},
		{`\!a`, []want{{"!a", false, true, true}}},
		{"/.*", []want{{".a", false, true, true}, {"a", false, false, false}}},
		{"/a*b*c", []want{{"abc", false, true, true}, {"aXbYbZc", false, true, true}, {"acb", false, false, false}}},
		{"/A", []want{{"a", false, false, false}}},
		{"/a b", []want{{"a b", false, true, true}}},
	}
	for _, test := range tests {
		g, err := ParseGlob(test.glob)
		if err != nil {
			t.Errorf("%s: %v", test.glob, err)
			continue
		}
		if g.String() != test.glob {
			t.Errorf("%s: String() = %q", test.glob, g)
		}
		for _, w := range test.wants {
			if got := g.Match(w.path, w.dir); got != w.matches {
				t.Errorf("%s matches %q (directory %t): %t", test.glob, w.path, w.dir, got)
			}
			if got := g.Covers(w.path, w.dir); got != w.cover {
				t.Errorf("%s covers %q (directory %t): %t", test.glob, w.path, w.dir, got)
			}
		}
	}
}

func TestGlobPath(t *testing.T) {
	for line, want := range map[string]string{
		"/etc/nginx": "etc/nginx", "/lost+found/": "lost+found", `/a\*b`: "a*b",
		"etc": "", "/etc/*": "", "/etc/**": "", "/[a]": "",
	} {
		g, err := ParseGlob(line)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := g.Path(); got != want || ok != (want != "") {
			t.Errorf("%s: %q, %t", line, got, ok)
		}
	}
	if _, ok := (Glob{}).Path(); ok {
		t.Error("the zero glob has a path")
	}
}

func TestGlobRefused(t *testing.T) {
	for _, line := range []string{
		"", "/", "//a", "/a//b", "/a/./b", "/a/../b", "..", ".", "!a", " a", "a ", "a\n", "a\tb", "a\x00b", "a\x7fb", "a\u0085b",
		"/a**b", "/**a", "/a***", "/[a", "/[", "/[!", "/[]", "/[b-a]", "/[[:alpha:]]", "/[a/b]", `/a\`, `/a\/b`, "\xff",
		strings.Repeat("a", GlobMax+1),
	} {
		_, err := ParseGlob(line)
		if err == nil {
			t.Errorf("%q is accepted", line)
		} else if fault.KindOf(err) != fault.Refuse || fault.AreaOf(err) != fault.Input || fault.HintOf(err) == "" {
			t.Errorf("%q: kind %s, area %d, hint %q", line, fault.KindOf(err), fault.AreaOf(err), fault.HintOf(err))
		}
	}
	if (Glob{}).Match("a", true) || (Glob{}).Covers("a", true) {
		t.Error("the zero glob matches something")
	}
}

// A pattern that takes exponential time in a backtracking matcher.
func TestGlobHostile(t *testing.T) {
	star, err := ParseGlob("/" + strings.Repeat("*a", 250) + "b")
	if err != nil {
		t.Fatal(err)
	}
	deep, err := ParseGlob(strings.Repeat("/**/a", 200) + "/b")
	if err != nil {
		t.Fatal(err)
	}
	if star.Match(strings.Repeat("a", 255), false) || deep.Covers(strings.Repeat("a/", 2000)+"a", false) {
		t.Error("matched")
	}
}

// naive is the definition of a match, without regard to cost.
func naive(parts []part, path []string) bool {
	switch {
	case len(parts) == 0:
		return len(path) == 0
	case parts[0].anyDepth && len(parts) == 1:
		return len(path) > 0
	case parts[0].anyDepth:
		return naive(parts[1:], path) || len(path) > 0 && naive(parts, path[1:])
	default:
		return len(path) > 0 && naiveName(parts[0], path[0]) && naive(parts[1:], path[1:])
	}
}

func naiveName(p part, name string) bool {
	if p.tokens == nil {
		return p.literal == name
	}
	var match func(tokens []token, s string) bool
	match = func(tokens []token, s string) bool {
		if len(tokens) == 0 {
			return s == ""
		}
		if s != "" {
			if tokens[0].star {
				_, size := utf8.DecodeRuneInString(s)
				return match(tokens[1:], s) || match(tokens, s[size:])
			}
			size, ok := tokens[0].match(s)
			return ok && match(tokens[1:], s[size:])
		}
		return tokens[0].star && match(tokens[1:], s)
	}
	return match(p.tokens, name)
}

func TestGlobProperties(t *testing.T) {
	component := rapid.OneOf(rapid.Just("**"), rapid.StringMatching(`[ab*?]{1,4}`), rapid.StringMatching(`\[!?[ab]\]a?`))
	name := rapid.StringMatching(`[abc]{1,4}`)
	rapid.Check(t, func(t *rapid.T) {
		line := strings.Join(rapid.SliceOfN(component, 1, 5).Draw(t, "glob"), "/")
		if rapid.Bool().Draw(t, "anchored") {
			line = "/" + line
		}
		if rapid.Bool().Draw(t, "dirOnly") {
			line += "/"
		}
		g, err := ParseGlob(line)
		if err != nil {
			t.Skip(err)
		}
		names := rapid.SliceOfN(name, 1, 6).Draw(t, "path")
		isDir := rapid.Bool().Draw(t, "isDir")
		path := strings.Join(names, "/")
		want := naive(g.parts, names) && (isDir || !g.dirOnly)
		if got := g.Match(path, isDir); got != want {
			t.Fatalf("%s matches %s: %t, want %t", line, path, got, want)
		}
		covered := want
		for i := 1; i < len(names); i++ {
			covered = covered || naive(g.parts, names[:i])
		}
		if got := g.Covers(path, isDir); got != covered {
			t.Fatalf("%s covers %s: %t, want %t", line, path, got, covered)
		}
	})
}

func FuzzGlob(f *testing.F) {
	for _, line := range []string{"/etc/nginx/**", "*.pyc", "/a/**/b/", "/[!a-c]?*", `/\*`, "/[a"} {
		f.Add(line, "etc/nginx/a")
	}
	f.Fuzz(func(t *testing.T, line, path string) {
		g, err := ParseGlob(line)
		if err != nil {
			if fault.KindOf(err) != fault.Refuse {
				t.Fatal(err)
			}
			return
		}
		if len(path) > 4096 {
			return
		}
		for _, dir := range []bool{false, true} {
			if g.Match(path, dir) && !g.Covers(path, dir) {
				t.Fatalf("%q matches but doesn't cover %q", line, path)
			}
			if g.Covers(path, true) && path != "" && !g.Covers(path+"/x", dir) {
				t.Fatalf("%q covers %q but not what is below", line, path)
			}
		}
	})
}

func BenchmarkGlobCovers(b *testing.B) {
	g, err := ParseGlob("/usr/**/doc/*.gz")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		g.Covers("usr/share/nginx/modules/doc/changelog.Debian.gz", false)
	}
}
