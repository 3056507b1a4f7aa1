package module

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/powernode/powernode-agent/internal/fault"
)

// field reads the value of one key; where is the key's path in the document, for errors.
type field func(n *yaml.Node, where string)

// parser reads a tree of YAML nodes. It keeps the first error; after one, nothing that it has
// read counts.
type parser struct{ err error }

func (p *parser) fail(n *yaml.Node, where, hint, format string, args ...any) {
	if p.err != nil {
		return
	}
	if where != "" {
		where += ": "
	}
	p.err = fault.New(fault.Refuse, fault.Input, hint, "line %d, column %d: %s%s",
		n.Line, n.Column, where, fmt.Sprintf(format, args...))
}

// reject fails with the text and hint of err.
func (p *parser) reject(n *yaml.Node, where string, err error) {
	p.fail(n, where, fault.HintOf(err), "%v", err)
}

// object reads a mapping that has no keys but those of fields.
func (p *parser) object(n *yaml.Node, where string, fields map[string]field) {
	p.pairs(n, where, func(key, value *yaml.Node, where string) {
		read, ok := fields[key.Value]
		if !ok {
			known := strings.Join(slices.Sorted(maps.Keys(fields)), ", ")
			p.fail(key, where, "the keys known here are "+known, "unknown key")
			return
		}
		read(value, where)
	})
}

// pairs calls f for each entry of a mapping whose keys are strings, each there once.
func (p *parser) pairs(n *yaml.Node, where string, f func(key, value *yaml.Node, where string)) {
	if n.Kind != yaml.MappingNode {
		p.fail(n, where, "", "want a mapping of keys to values, got %s", kindOf(n))
		return
	}
	if where != "" {
		where += "."
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content) && p.err == nil; i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := where + fmt.Sprintf("%.80s", printable(key.Value))
		switch {
		case key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str":
			p.fail(key, at, "quote the key", "want a string as the key, got %s", kindOf(key))
		case seen[key.Value]:
			p.fail(key, at, "remove one of the two", "the key is there twice")
		default:
			seen[key.Value] = true
			f(key, value, at)
		}
	}
}

// list returns a field that calls f for each item of a sequence of at most limit.
func (p *parser) list(limit int, f field) field {
	return func(n *yaml.Node, where string) {
		switch {
		case n.Kind != yaml.SequenceNode:
			p.fail(n, where, "write a list, one \"- item\" a line", "want a list, got %s", kindOf(n))
		case len(n.Content) > limit:
			p.fail(n, where, "", "%d items, at most %d are allowed", len(n.Content), limit)
		default:
			for i, item := range n.Content {
				if p.err == nil {
					f(item, fmt.Sprintf("%s[%d]", where, i))
				}
			}
		}
	}
}

// text returns a field for a string of at most limit bytes that may hold line breaks and tabs
// but no other control characters.
func (p *parser) text(dst *string, limit int) field {
	return func(n *yaml.Node, where string) {
		if s, ok := p.str(n, where, limit); ok {
			if hasControl(strings.NewReplacer("\n", "", "\t", "").Replace(s)) {
				p.fail(n, where, "remove them", "control characters are not allowed")
			}
			*dst = s
		}
	}
}

// line returns a field for a string of at most limit bytes without control characters, which
// every check, if there are any, accepts.
func (p *parser) line(dst *string, limit int, checks ...func(string) error) field {
	return func(n *yaml.Node, where string) {
		s, ok := p.str(n, where, limit)
		if !ok {
			return
		}
		if hasControl(s) {
			p.fail(n, where, "write it in one line", "line breaks and control characters are not allowed")
		}
		for _, check := range checks {
			if err := check(s); err != nil {
				p.reject(n, where, err)
			}
		}
		*dst = s
	}
}

// lines returns a field for a list of what line reads, each there once.
func (p *parser) lines(dst *[]string, limit int, checks ...func(string) error) field {
	seen := make(map[string]bool)
	return p.list(limit, func(n *yaml.Node, where string) {
		var s string
		p.line(&s, lineMax, checks...)(n, where)
		if seen[s] {
			p.fail(n, where, "remove one of the two", "%.80q is listed twice", s)
		}
		seen[s] = true
		*dst = append(*dst, s)
	})
}

// orNull returns a field that also takes null, which leaves the value as it is.
func orNull(f field) field {
	return func(n *yaml.Node, where string) {
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!null" {
			f(n, where)
		}
	}
}

func (p *parser) boolean(dst *bool) field {
	return func(n *yaml.Node, where string) {
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" || n.Decode(dst) != nil {
			p.fail(n, where, "write true or false", "want true or false, got %s", kindOf(n))
		}
	}
}

func (p *parser) integer(dst *int, lo, hi int) field {
	return func(n *yaml.Node, where string) {
		var i int64
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || n.Decode(&i) != nil {
			p.fail(n, where, "", "want a whole number, got %s", kindOf(n))
		} else if i < int64(lo) || i > int64(hi) {
			p.fail(n, where, "", "%d is not in the range %d to %d", i, lo, hi)
		}
		*dst = int(i)
	}
}

// value reads what the platform passes on as it is: nothing that JSON can't hold.
func (p *parser) value(n *yaml.Node, where string) any {
	switch n.Kind {
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		p.pairs(n, where, func(key, value *yaml.Node, where string) {
			m[key.Value] = p.value(value, where)
		})
		return m
	case yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for i, item := range n.Content {
			list = append(list, p.value(item, fmt.Sprintf("%s[%d]", where, i)))
		}
		return list
	}
	switch n.ShortTag() {
	case "!!null":
		return nil
	case "!!str", "!!timestamp":
		return n.Value
	case "!!bool":
		var b bool
		p.boolean(&b)(n, where)
		return b
	case "!!int":
		var i int64
		if n.Decode(&i) == nil {
			return i
		}
	case "!!float":
		var f float64
		if n.Decode(&f) == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
			return f
		}
	}
	p.fail(n, where, "quote it", "%s can't be passed on", kindOf(n))
	return nil
}

func (p *parser) str(n *yaml.Node, where string, limit int) (string, bool) {
	switch {
	case n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str":
		p.fail(n, where, "quote it if it is meant as text", "want a string, got %s", kindOf(n))
	case len(n.Value) > limit:
		p.fail(n, where, "", "%d bytes, at most %d are allowed", len(n.Value), limit)
	case !utf8.ValidString(n.Value):
		p.fail(n, where, "", "the text is not UTF-8")
	default:
		return n.Value, true
	}
	return "", false
}

// plain refuses what lets a document mean more than it shows: anchors, aliases and own tags.
func (p *parser) plain(n *yaml.Node) {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		p.fail(n, "", "write the value out", "anchors and aliases are not allowed")
	case n.Style&yaml.TaggedStyle != 0:
		p.fail(n, "", "remove the tag", "tags are not allowed")
	}
	for _, child := range n.Content {
		if p.err == nil {
			p.plain(child)
		}
	}
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		if tag := n.ShortTag(); tag == "!!null" {
			return "nothing"
		}
		return fmt.Sprintf("%.60q", n.Value)
	default:
		return "something else"
	}
}

// printable is s with everything that could disturb a terminal or a log escaped.
func printable(s string) string {
	q := fmt.Sprintf("%q", s)
	return q[1 : len(q)-1]
}
