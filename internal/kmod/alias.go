package kmod

import (
	"io"
	"slices"
	"strings"
)

// aliases holds modules.alias, grouped by what comes before the first colon: the bus of a device's
// modalias ("pci", "virtio", "usb"), or "" for plain names such as "fs-erofs".
type aliases map[string][]alias

type alias struct {
	pattern string
	module  string // canonical
}

// parseAliases reads modules.alias: "alias pattern module".
func parseAliases(r io.Reader) (aliases, error) {
	a := aliases{}
	err := lines(r, func(line string) error {
		words := strings.Fields(line)
		if len(words) != 3 || words[0] != "alias" {
			return nil
		}
		bus := busOf(words[1])
		a[bus] = append(a[bus], alias{pattern: aliasName(words[1]), module: canonical(words[2])})
		return nil
	})
	return a, err
}

// busOf returns what stands before the first colon; "" where a wildcard comes first, too, so that
// match looks at such a pattern for every name.
func busOf(pattern string) string {
	bus, _, ok := strings.Cut(pattern, ":")
	if !ok || strings.ContainsAny(bus, "*?[") {
		return ""
	}
	return bus
}

// aliasName writes an alias as depmod compares it: '-' is '_' outside of brackets, where it stands
// for a range.
func aliasName(s string) string {
	if !strings.Contains(s, "-") {
		return s
	}
	b, inside := []byte(s), false
	for i, c := range b {
		switch {
		case c == '[':
			inside = true
		case c == ']':
			inside = false
		case c == '-' && !inside:
			b[i] = '_'
		}
	}
	return string(b)
}

// match returns the modules whose alias matches name, each once, in the file's order.
func (a aliases) match(name string) []string {
	var found []string
	name = strings.ReplaceAll(name, "-", "_")
	groups := []string{""}
	if bus := busOf(name); bus != "" {
		groups = append(groups, bus)
	}
	for _, g := range groups {
		for _, x := range a[g] {
			if glob(x.pattern, name) && !slices.Contains(found, x.module) {
				found = append(found, x.module)
			}
		}
	}
	return found
}

// glob reports whether name matches a pattern of fnmatch(3) without flags: '*' is any bytes, '?' one
// byte, "[a-f0]" one of a set, "[!0]" one that isn't in it. An unfinished set is an ordinary '['.
// It takes time in proportion to the product of both lengths at worst: only the last '*' is ever
// tried again.
func glob(pattern, name string) bool {
	p, n := 0, 0
	starP, starN := -1, 0
	for n < len(name) {
		if p < len(pattern) && pattern[p] == '*' {
			p++
			starP, starN = p, n
			continue
		}
		if p < len(pattern) {
			if ok, width := one(pattern[p:], name[n]); ok {
				p += width
				n++
				continue
			}
		}
		if starP < 0 {
			return false
		}
		starN++
		p, n = starP, starN
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// one matches one byte with the first element of a pattern that isn't empty, and returns that
// element's width.
func one(pattern string, c byte) (ok bool, width int) {
	switch pattern[0] {
	case '?':
		return true, 1
	case '[':
		if ok, width := set(pattern, c); width > 0 {
			return ok, width
		}
	}
	return pattern[0] == c, 1
}

// set matches one byte with the set that pattern begins with; width is 0 where it has no end.
func set(pattern string, c byte) (ok bool, width int) {
	i, not := 1, false
	if i < len(pattern) && (pattern[i] == '!' || pattern[i] == '^') {
		not = true
		i++
	}
	for first := i; i < len(pattern); {
		low := pattern[i]
		if low == ']' && i > first {
			return ok != not, i + 1
		}
		high := low
		if i+2 < len(pattern) && pattern[i+1] == '-' && pattern[i+2] != ']' {
			high = pattern[i+2]
			i += 2
		}
		i++
		ok = ok || low <= c && c <= high
	}
	return false, 0
}
