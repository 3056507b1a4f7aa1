package signature

import (
	"errors"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// What the YAML library says of a document that doesn't have the policy's shape names Go's types.
var (
	yamlUnknown = regexp.MustCompile(`^(line \d+: )field (.*) not found in type \S+$`)
	yamlTwice   = regexp.MustCompile(`^(line \d+: )field (.*) already set in type \S+$`)
	yamlShape   = regexp.MustCompile("(?s)^(line \\d+: )cannot unmarshal (\\S+)( `.*`)? into (\\S+)$")
)

// yamlShapes are a person's words for what YAML's tags mean.
var yamlShapes = map[string]string{
	"!!map": "keys with values", "!!seq": "a list", "!!str": "the text", "!!int": "the number", "!!float": "the number",
	"!!bool": "the value", "!!null": "nothing", "!!timestamp": "the time",
}

// plainYAML returns an error of the YAML library in words about the document: the line, what is
// there and what should be.
func plainYAML(err error) error {
	wrong, ok := errors.AsType[*yaml.TypeError](err)
	if !ok {
		return errors.New("it isn't YAML: " + strings.TrimPrefix(err.Error(), "yaml: "))
	}
	said := make([]string, len(wrong.Errors))
	for i, text := range wrong.Errors {
		said[i] = plainYAMLShape(text)
	}
	return errors.New(strings.Join(said, "; "))
}

func plainYAMLShape(text string) string {
	if m := yamlUnknown.FindStringSubmatch(text); m != nil {
		return m[1] + "the key " + m[2] + " isn't known"
	}
	if m := yamlTwice.FindStringSubmatch(text); m != nil {
		return m[1] + "the key " + m[2] + " is there twice"
	}
	m := yamlShape.FindStringSubmatch(text)
	if m == nil {
		return text
	}
	have := yamlShapes[m[2]]
	if have == "" {
		have = "something else"
	}
	want := "keys with values"
	switch {
	case strings.HasPrefix(m[4], "[]"):
		want = "a list"
	case m[4] == "string":
		want = "a text"
	case m[4] == "int":
		want = "a whole number"
	}
	if m[2] == "!!map" || m[2] == "!!seq" || m[2] == "!!null" {
		m[3] = ""
	}
	return m[1] + "there is " + have + m[3] + ", and it must be " + want
}
