package kmod

import (
	"strings"
	"testing"
)

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"", "", true},
		{"*", "", true},
		{"a", "", false},
		{"virtio:d00000002v*", "virtio:d00000002v00001AF4", true},
		{"virtio:d00000002v*", "virtio:d00000001v00001AF4", false},
		{"pci:v*d*sv*sd*bc01sc06i01*", "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01", true},
		{"pci:v*d*sv*sd*bc01sc06i01*", "pci:v00008086d00002922sv00001AF4sd00001100bc01sc01i80", false},
		{"usb:v*p*d*dc*dsc*dp*ic08isc06ip[0-5]0in*", "usb:v1p1d1dc1dsc1dp1ic08isc06ip50in00", true},
		{"[!0-9]x", "ax", true},
		{"[!0-9]x", "3x", false},
		{"[]a]", "]", true},
		{"[]a]", "a", true},
		{"[a-]", "-", true},
		{"[abc", "[abc", true},
		{"[abc", "a", false},
		{"?*?", "a", false},
		{"?*?", "ab", true},
		{"*a*b*c", "xxaxxbxxbxxc", true},
		{"*.ko", "a/b.ko", true},
		{strings.Repeat("*a", 50) + "b", strings.Repeat("a", 4000), false},
	} {
		if got := glob(c.pattern, c.name); got != c.want {
			t.Errorf("glob(%q, %q) = %v", c.pattern, c.name, got)
		}
	}
}

// slow is glob written as its definition, in exponential time.
func slow(pattern, name string) bool {
	switch {
	case pattern == "":
		return name == ""
	case pattern[0] == '*':
		return slow(pattern[1:], name) || name != "" && slow(pattern, name[1:])
	case name == "":
		return false
	}
	ok, width := one(pattern, name[0])
	return ok && slow(pattern[width:], name[1:])
}

func FuzzGlob(f *testing.F) {
	f.Add("a*b?c[d-f]", "axxbycd")
	f.Add("**[!]]", "x]")
	f.Add("[", "[")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(pattern) > 24 || len(name) > 24 || strings.Count(pattern, "*") > 6 {
			return
		}
		if got, want := glob(pattern, name), slow(pattern, name); got != want {
			t.Errorf("glob(%q, %q) = %v, want %v", pattern, name, got, want)
		}
	})
}

func FuzzIndex(f *testing.F) {
	f.Add("kernel/a.ko: kernel/b.ko.xz kernel/c-d.ko\n# x\nkernel/b.ko.xz:\n")
	f.Add("softdep a pre: b c post: d\nalias pci:v*d[0-9]* a\n")
	f.Add("../../x.ko:\n/etc/shadow: a\n")
	f.Fuzz(func(t *testing.T, text string) {
		modules, err := parseDep(strings.NewReader(text))
		if err == nil {
			for name, m := range modules {
				for _, p := range append([]string{m.path}, m.deps...) {
					if strings.HasPrefix(p, "/") || strings.HasPrefix(p, "../") {
						t.Errorf("%s leads out: %q", name, p)
					}
				}
			}
		}
		if a, err := parseAliases(strings.NewReader(text)); err == nil {
			a.match(text)
		}
		_, _ = parseSoftdep(strings.NewReader(text))
		_, _ = parseBuiltin(strings.NewReader(text))
	})
}
