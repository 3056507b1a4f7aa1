package openapi

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Schema is a JSON Schema (2020-12), as far as the wire needs it.
type Schema struct {
	Ref                  string             `json:"$ref,omitempty"`
	Type                 any                `json:"type,omitempty"` // a word, or a list of them
	Description          string             `json:"description,omitempty"`
	Format               string             `json:"format,omitempty"`
	ContentEncoding      string             `json:"contentEncoding,omitempty"`
	Const                any                `json:"const,omitempty"`
	Enum                 []string           `json:"enum,omitempty"`
	Examples             []string           `json:"examples,omitempty"`
	Pattern              string             `json:"pattern,omitempty"`
	MinLength            *int64             `json:"minLength,omitempty"`
	MaxLength            *int64             `json:"maxLength,omitempty"`
	Minimum              *int64             `json:"minimum,omitempty"`
	Maximum              *int64             `json:"maximum,omitempty"`
	MinItems             *int64             `json:"minItems,omitempty"`
	MaxItems             *int64             `json:"maxItems,omitempty"`
	Items                *Schema            `json:"items,omitempty"`
	MaxProperties        *int64             `json:"maxProperties,omitempty"`
	Properties           map[string]*Schema `json:"properties,omitempty"`
	AdditionalProperties any                `json:"additionalProperties,omitempty"` // a *Schema, or false
	Required             []string           `json:"required,omitempty"`
	AnyOf                []*Schema          `json:"anyOf,omitempty"`
}

// Bounds are the least and the most of a number, a text's length or a list's. Most 0 is no bound.
type Bounds struct{ Least, Most int64 }

// Rule is what a field's type doesn't say of its values.
type Rule struct {
	Format  string
	Pattern string
	Enum    []string
	// As names a type whose constants are the values, as "nodeapi.TaskState".
	As string
	// Bounds are a number's, a text's in bytes, or a list's or a map's in entries.
	Bounds *Bounds
	// Each is about the entries of a list, or the values of a map.
	Each *Rule
	// Null says that null is there where nothing is known, or may be sent.
	Null bool
	// Open says that there may be other values than the type's constants, which are examples then.
	Open bool
}

// Rules are rules by "package.Type.json_name", by "package.Type" for every field of a type.
type Rules map[string]Rule

// Needed are the fields without which a request is refused, by "package.Type". The answers' fields need none: those that Go's encoder
// never leaves out are always there.
type Needed map[string][]string

// schemas makes schemas of Go's types, and keeps those of structs by name.
type schemas struct {
	rules  Rules
	needed Needed
	// strict are the requests in which unknown fields are refused: those of packages with these names.
	strict []string
	words  words
	// known are the components. used are the rules and needs that were asked for.
	known map[string]*Schema
	used  map[string]bool
}

// inputSuffix is on the names of requests' types that answers have, too.
const inputSuffix = "Input"

var (
	timeType = reflect.TypeFor[time.Time]()
	rawType  = reflect.TypeFor[json.RawMessage]()
)

// nameOf returns "package.Type".
func nameOf(t reflect.Type) string { return t.String() }

// of returns the schema of a type, in a request or in an answer.
func (s *schemas) of(t reflect.Type, request bool, rule Rule) (*Schema, error) {
	switch t {
	case timeType:
		return &Schema{Type: "string", Format: "date-time"}, nil
	case rawType:
		return &Schema{Type: "object"}, nil
	}
	//nolint:exhaustive // others are an error
	switch t.Kind() {
	case reflect.Pointer:
		return s.of(t.Elem(), request, rule)
	case reflect.Bool:
		return &Schema{Type: "boolean"}, nil
	case reflect.String:
		if rule.As != "" && len(s.words.Values[rule.As]) == 0 {
			return nil, fmt.Errorf("there are no values of the type %s", rule.As)
		}
		return s.text(t, rule), nil
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return number(t, rule), nil
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return &Schema{Type: "string", ContentEncoding: "base64"}, nil
		}
		item, err := s.of(t.Elem(), request, each(rule))
		out := &Schema{Type: "array", Items: item}
		if rule.Bounds != nil {
			out.MinItems, out.MaxItems = least(rule.Bounds), most(rule.Bounds)
		}
		return out, err
	case reflect.Map:
		value, err := s.of(t.Elem(), request, each(rule))
		out := &Schema{Type: "object", AdditionalProperties: value}
		if rule.Bounds != nil {
			out.MaxProperties = most(rule.Bounds)
		}
		return out, err
	case reflect.Struct:
		name, err := s.component(t, request)
		return &Schema{Ref: "#/components/schemas/" + name}, err
	}
	return nil, fmt.Errorf("no schema for %s", t)
}

func each(r Rule) Rule {
	if r.Each == nil {
		return Rule{}
	}
	return *r.Each
}

// least and most leave out what bounds nothing.
func least(b *Bounds) *int64 {
	if b.Least == 0 {
		return nil
	}
	return &b.Least
}

func most(b *Bounds) *int64 {
	if b.Most == 0 {
		return nil
	}
	return &b.Most
}

func (s *schemas) text(t reflect.Type, rule Rule) *Schema {
	if r, ok := s.rules[nameOf(t)]; ok && t.PkgPath() != "" {
		s.used[nameOf(t)] = true
		rule = r
	}
	out := &Schema{Type: "string", Format: rule.Format, Pattern: rule.Pattern, Enum: rule.Enum}
	if rule.Bounds != nil {
		out.MinLength, out.MaxLength = least(rule.Bounds), most(rule.Bounds)
	}
	switch {
	case rule.As != "":
		out.Enum = s.words.Values[rule.As]
	case rule.Open:
		out.Examples = s.words.Values[nameOf(t)]
	case t.PkgPath() != "":
		out.Enum = s.words.Values[nameOf(t)]
	}
	return out
}

func number(t reflect.Type, rule Rule) *Schema {
	out := &Schema{Type: "integer"}
	if t.Kind() != reflect.Int {
		out.Format = "int64"
	}
	switch {
	case rule.Bounds != nil:
		out.Minimum, out.Maximum = &rule.Bounds.Least, most(rule.Bounds)
	case t.Kind() == reflect.Uint64:
		out.Minimum = new(int64)
	}
	return out
}

// component makes the schema of a struct, if there is none yet, and returns its name. Answers come first: a request of the same type,
// in which other fields are needed, gets a name of its own.
func (s *schemas) component(t reflect.Type, request bool) (string, error) {
	name := nameOf(t)
	if request {
		if _, answer := s.known[name]; answer {
			name += inputSuffix
		}
	}
	if _, made := s.known[name]; made {
		return name, nil
	}
	out := &Schema{Type: "object", Description: s.words.Types[nameOf(t)], Properties: map[string]*Schema{}}
	// Before its fields, which may be of it.
	s.known[name] = out
	if request {
		out.Required = slices.Sorted(slices.Values(s.needed[nameOf(t)]))
		s.used["needed "+nameOf(t)] = true
		if pkg, _, _ := strings.Cut(nameOf(t), "."); slices.Contains(s.strict, pkg) {
			out.AdditionalProperties = false
		}
	}
	for i := range t.NumField() {
		f := t.Field(i)
		field, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if field == "" || field == "-" || f.Anonymous {
			return "", fmt.Errorf("%s.%s has no name in JSON", nameOf(t), f.Name)
		}
		path := nameOf(t) + "." + field
		rule := s.rules[path]
		s.used[path] = true
		schema, err := s.of(f.Type, request, rule)
		if err != nil {
			return "", fmt.Errorf("%s: %w", path, err)
		}
		schema.Description = s.words.Fields[path]
		if rule.Null {
			if schema.Type, err = orNull(schema.Type); err != nil {
				return "", fmt.Errorf("%s: %w", path, err)
			}
		}
		out.Properties[field] = schema
		if optional := strings.Contains(options, "omit"); !request && !optional {
			out.Required = append(out.Required, field)
		}
	}
	return name, nil
}

func orNull(kind any) (any, error) {
	word, ok := kind.(string)
	if !ok {
		return nil, fmt.Errorf("%v can't be null, too", kind)
	}
	return []string{word, "null"}, nil
}

// unused names rules and needs that no field has.
func (s *schemas) unused() []string {
	var names []string
	for name := range s.rules {
		if !s.used[name] {
			names = append(names, name)
		}
	}
	for name, fields := range s.needed {
		if !s.used["needed "+name] {
			names = append(names, name)
		}
		for _, f := range fields {
			if !s.used[name+"."+f] {
				names = append(names, name+"."+f)
			}
		}
	}
	slices.Sort(names)
	return names
}
