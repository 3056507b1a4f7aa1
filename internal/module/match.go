package module

import (
	"strings"
	"unicode/utf8"
)

// Match reports whether the glob matches the path itself; what lies below a match is covered by
// it, too, and that is for Covers. The path is relative to the module's root, without a leading
// slash, "." or ".."; the root itself, "", is matched by nothing. isDir says whether the path
// names a directory.
func (g Glob) Match(path string, isDir bool) bool {
	return path != "" && (isDir || !g.dirOnly) && matchPath(g.parts, path, func(more bool) bool {
		return !more
	})
}

// Covers reports whether the glob matches the path or a directory above it.
func (g Glob) Covers(path string, isDir bool) bool {
	return path != "" && matchPath(g.parts, path, func(more bool) bool {
		return more || isDir || !g.dirOnly
	})
}

// Path returns the path that the glob matches if it can match only one: it begins with a slash
// and holds no wildcard.
func (g Glob) Path() (string, bool) {
	if len(g.parts) == 0 {
		return "", false
	}
	names := make([]string, len(g.parts))
	for i, p := range g.parts {
		if p.anyDepth || p.tokens != nil {
			return "", false
		}
		names[i] = p.literal
	}
	return strings.Join(names, "/"), true
}

// matchPath matches parts against the path's components one by one. When the parts are used up,
// done is asked whether that is a match, and told whether components of the path remain.
func matchPath(parts []part, path string, done func(more bool) bool) bool {
	if len(parts) == 0 {
		return false
	}
	// On a mismatch the component at retryPath is given to the last "**", and matching goes on
	// after it: earlier ones never need to grow, because the last can take whatever they would.
	var retryParts []part
	retryPath, retryMore, more := "", false, true
	for {
		switch {
		case len(parts) == 0:
			if done(more) {
				return true
			}
		case parts[0].anyDepth:
			parts = parts[1:]
			if len(parts) > 0 {
				retryParts, retryPath, retryMore = parts, path, more
				continue
			}
			// At the end it takes one component at least: "/etc/**" doesn't match /etc.
			for more {
				if _, path, more = strings.Cut(path, "/"); done(more) {
					return true
				}
			}
			return false
		case more:
			var component string
			was := path
			if component, path, more = strings.Cut(was, "/"); parts[0].match(component) {
				parts = parts[1:]
				continue
			}
		}
		if !retryMore {
			return false
		}
		_, retryPath, retryMore = strings.Cut(retryPath, "/")
		parts, path, more = retryParts, retryPath, retryMore
	}
}

func (p part) match(name string) bool {
	if p.tokens == nil {
		return name == p.literal
	}
	tokens := p.tokens
	// As in Glob.Match: only the last "*" ever needs to take one more character.
	var retryTokens []token
	retryName := ""
	for {
		switch {
		case len(tokens) > 0 && tokens[0].star:
			tokens = tokens[1:]
			retryTokens, retryName = tokens, name
			if len(tokens) == 0 {
				return true
			}
			continue
		case len(tokens) == 0 && name == "":
			return true
		case len(tokens) > 0 && name != "":
			if size, ok := tokens[0].match(name); ok {
				tokens, name = tokens[1:], name[size:]
				continue
			}
		}
		if retryTokens == nil || retryName == "" {
			return false
		}
		_, size := utf8.DecodeRuneInString(retryName)
		tokens, name, retryName = retryTokens, retryName[size:], retryName[size:]
	}
}

// match reports whether the token matches the first character of s, and that one's size.
func (t token) match(s string) (int, bool) {
	c, size := utf8.DecodeRuneInString(s)
	if c == utf8.RuneError && size == 1 {
		// Not valid UTF-8: only "?" and a negated class take the byte.
		return size, t.negated
	}
	if t.class == nil {
		return size, c == t.char
	}
	for _, r := range t.class {
		if r.lo <= c && c <= r.hi {
			return size, !t.negated
		}
	}
	return size, t.negated
}

// Spec is a list of globs. The zero value matches nothing.
type Spec []Glob

// ParseSpec reads the lines of a spec; the error names the first that is wrong.
func ParseSpec(lines []string) (Spec, error) {
	spec := make(Spec, 0, len(lines))
	for _, line := range lines {
		g, err := ParseGlob(line)
		if err != nil {
			return nil, err
		}
		spec = append(spec, g)
	}
	return spec, nil
}

// Match returns the first glob that matches the path itself.
func (s Spec) Match(path string, isDir bool) (Glob, bool) {
	for _, g := range s {
		if g.Match(path, isDir) {
			return g, true
		}
	}
	return Glob{}, false
}

// Covers returns the first glob that matches the path or a directory above it.
func (s Spec) Covers(path string, isDir bool) (Glob, bool) {
	for _, g := range s {
		if g.Covers(path, isDir) {
			return g, true
		}
	}
	return Glob{}, false
}
