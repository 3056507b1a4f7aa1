package module

import (
	"strings"
	"unicode/utf8"

	"github.com/powernode/powernode-agent/internal/fault"
)

// GlobMax is the longest glob in bytes.
const GlobMax = 1024

// Glob is one line of a spec; the package documentation says what it matches. The zero value
// matches nothing.
type Glob struct {
	line  string
	parts []part
	// dirOnly is set by a slash at the end.
	dirOnly bool
}

// part is one component of a glob.
type part struct {
	// anyDepth marks "**".
	anyDepth bool
	// literal is the component where it holds no wildcard; tokens is nil then.
	literal string
	tokens  []token
}

// token matches one character, or with star set any run of them.
type token struct {
	star bool
	// class is nil for one particular character, char; an empty, negated class is "?".
	class   []charRange
	negated bool
	char    rune
}

type charRange struct{ lo, hi rune }

// ParseGlob reads one line of a spec. The error is a fault.Refuse in area Input.
func ParseGlob(line string) (Glob, error) {
	refuse := func(why, hint string) (Glob, error) {
		return Glob{}, fault.New(fault.Refuse, fault.Input, hint, "glob %.100q: %s", line, why)
	}
	switch {
	case line == "":
		return refuse("it is empty", "remove the line")
	case len(line) > GlobMax:
		return refuse("it is longer than 1024 bytes", "match a directory above instead")
	case !utf8.ValidString(line) || hasControl(line):
		return refuse("it holds control characters or is not UTF-8", "write plain text, one glob a line")
	case strings.TrimSpace(line) != line:
		return refuse("it begins or ends with white space", "remove the white space")
	case line[0] == '!':
		return refuse("negation is not supported", "list what is meant, or escape the first character as \\!")
	}
	g := Glob{line: line}
	rest, anchored := strings.CutPrefix(line, "/")
	if !anchored {
		g.parts = append(g.parts, part{anyDepth: true})
	}
	components := splitGlob(rest)
	if last := len(components) - 1; last > 0 && components[last] == "" {
		g.dirOnly, components = true, components[:last]
	}
	for _, component := range components {
		switch component {
		case "", ".", "..":
			return refuse("it has an empty, \".\" or \"..\" component", "write the path from the module's root (\"/**\" for everything)")
		case "**":
			// Two in a row mean what one means.
			if n := len(g.parts); n == 0 || !g.parts[n-1].anyDepth {
				g.parts = append(g.parts, part{anyDepth: true})
			}
			continue
		}
		p, why := parsePart(component)
		if why != "" {
			return refuse(why, "escape the character with a backslash if it is meant as itself")
		}
		g.parts = append(g.parts, p)
	}
	return g, nil
}

// splitGlob splits at the slashes; one in a class or after a backslash splits too, because no
// name holds a slash, and what remains of the class is then refused.
func splitGlob(s string) []string { return strings.Split(s, "/") }

// parsePart reads one component; why is what is wrong with it, or "".
func parsePart(s string) (p part, why string) {
	var plain strings.Builder
	wild := false
	for i := 0; i < len(s); {
		c, size := utf8.DecodeRuneInString(s[i:])
		i += size
		t := token{char: c}
		switch c {
		case '\\':
			if i == len(s) {
				return part{}, "it ends a component with a backslash"
			}
			t.char, size = utf8.DecodeRuneInString(s[i:])
			i += size
		case '*':
			if i < len(s) && s[i] == '*' {
				return part{}, "\"**\" must be a whole component"
			}
			t, wild = token{star: true}, true
		case '?':
			t, wild = token{class: []charRange{}, negated: true}, true
		case '[':
			if t, size, why = parseClass(s[i:]); why != "" {
				return part{}, why
			}
			i += size
			wild = true
		}
		p.tokens = append(p.tokens, t)
		plain.WriteRune(t.char)
	}
	if !wild {
		return part{literal: plain.String()}, ""
	}
	return p, ""
}

// parseClass reads a class after its opening bracket and returns how many bytes it took. A "]"
// right after the opening or its negation stands for itself, as in fnmatch(3).
func parseClass(s string) (t token, size int, why string) {
	const unclosed = "a \"[\" is not closed"
	i := 0
	if i < len(s) && (s[i] == '!' || s[i] == '^') {
		t.negated = true
		i++
	}
	next := func() (rune, bool) {
		if i < len(s) && s[i] == '\\' {
			i++
		}
		if i >= len(s) {
			return 0, false
		}
		c, n := utf8.DecodeRuneInString(s[i:])
		i += n
		return c, true
	}
	t.class = []charRange{}
	for first := true; ; first = false {
		if i < len(s) && s[i] == ']' && !first {
			return t, i + 1, ""
		}
		if strings.HasPrefix(s[i:], "[:") {
			return token{}, 0, "named classes such as [:alpha:] are not supported"
		}
		lo, ok := next()
		if !ok {
			return token{}, 0, unclosed
		}
		hi := lo
		if i+1 < len(s) && s[i] == '-' && s[i+1] != ']' {
			i++
			if hi, ok = next(); !ok {
				return token{}, 0, unclosed
			}
			if hi < lo {
				return token{}, 0, "a range in a class runs backwards"
			}
		}
		t.class = append(t.class, charRange{lo, hi})
	}
}

// String returns the line that the glob was read from.
func (g Glob) String() string { return g.line }

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || 0x7f <= r && r < 0xa0 })
}
