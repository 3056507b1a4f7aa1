package signature

import (
	"errors"
	"fmt"
	"strings"
)

// nameMax is the longest repository name, and the longest pattern of one, in bytes.
const nameMax = 512

// pattern is a glob over names of several components separated by slashes: "*" is any run of
// characters of one component, "**" as a whole component any number of components, even none.
type pattern struct {
	text  string
	parts []string
}

// parseImagePattern reads a pattern of repository names.
func parseImagePattern(text string) (pattern, error) {
	switch {
	case len(text) > nameMax:
		return pattern{}, fmt.Errorf("it is longer than %d bytes", nameMax)
	case text != "**" && !strings.Contains(text, "/"):
		return pattern{}, errors.New(`it has no host; write host/path, or "**" for every image`)
	}
	p := pattern{text: text, parts: strings.Split(text, "/")}
	for i, part := range p.parts {
		if part == "**" {
			continue
		}
		if strings.Contains(part, "**") {
			return pattern{}, errors.New(`"**" must be a whole component`)
		}
		if err := checkComponent(strings.ReplaceAll(part, "*", "x"), i == 0); err != nil {
			return pattern{}, err
		}
	}
	return p, nil
}

// parseModulePattern reads a pattern of module names, which have one component.
func parseModulePattern(text string) (pattern, error) {
	if len(text) > nameMax {
		return pattern{}, fmt.Errorf("it is longer than %d bytes", nameMax)
	}
	for _, c := range []byte(text) {
		if !isLowerOrDigit(c) && c != '-' && c != '*' {
			return pattern{}, errors.New("a module name has lower-case letters, digits and hyphens; * matches any of them")
		}
	}
	if text == "" || strings.Contains(text, "**") {
		return pattern{}, errors.New(`it is empty or holds "**"`)
	}
	return pattern{text: text, parts: []string{text}}, nil
}

// checkRepository reports what is wrong with the name of a repository, host/path. Wildcards
// aren't part of the alphabet, so a name can't be mistaken for a pattern.
func checkRepository(name string) error {
	parts := strings.Split(name, "/")
	if len(name) > nameMax || len(parts) < 2 {
		return fmt.Errorf("it is not of the form host/path, at most %d bytes", nameMax)
	}
	for i, part := range parts {
		if err := checkComponent(part, i == 0); err != nil {
			return err
		}
	}
	return nil
}

// checkComponent checks one component; the host may also have a port and an IPv6 address.
func checkComponent(part string, host bool) error {
	if part == "" || part == "." || part == ".." {
		return errors.New(`it has an empty, "." or ".." component`)
	}
	for _, c := range []byte(part) {
		switch {
		case isLowerOrDigit(c) || c == '.' || c == '_' || c == '-':
		case host && (c == ':' || c == '[' || c == ']'):
		case c == ':' || c == '@':
			return errors.New("it has a tag or a digest; leave it out")
		default:
			return fmt.Errorf("it holds the character %q; names are in lower case", string(rune(c)))
		}
	}
	return nil
}

func isLowerOrDigit(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// match reports whether the pattern covers name. The time is in proportion to the pattern's
// length times the name's.
func (p pattern) match(name string) bool {
	parts := strings.Split(name, "/")
	// reach[i] says that the pattern so far matches the first i components.
	reach := make([]bool, len(parts)+1)
	reach[0] = true
	for _, want := range p.parts {
		next := make([]bool, len(parts)+1)
		for i := range reach {
			switch {
			case want == "**":
				next[i] = reach[i] || i > 0 && next[i-1]
			case i > 0 && reach[i-1]:
				next[i] = matchComponent(want, parts[i-1])
			}
		}
		reach = next
	}
	return reach[len(parts)]
}

// matchComponent matches one component, in which only "*" is special. When a star has to take
// one character more, only the last star needs to be tried again.
func matchComponent(want, have string) bool {
	i, j := 0, 0
	star, mark := -1, 0
	for j < len(have) {
		switch {
		case i < len(want) && want[i] == '*':
			star, mark = i, j
			i++
		case i < len(want) && want[i] == have[j]:
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(want[i:], "*") == ""
}
