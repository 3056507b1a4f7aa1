package bootconfig

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// FileMax bounds boot.yaml in bytes.
const FileMax = 64 << 10

// SchemaVersion is the only schema_version of boot.yaml that is read.
const SchemaVersion = "1"

// readFile applies boot.yaml: one flat mapping from the names of settings to single values. An empty file
// is an error too: it may be what a full disk left of one that asks for more than the defaults.
func (c *Config) readFile(text []byte) error {
	if len(text) > FileMax {
		return fmt.Errorf("it is larger than %d bytes", FileMax)
	}
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return errNoSchema
	} else if err != nil {
		return err
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.New("it holds more than one document")
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode || doc.Content[0].Anchor != "" {
		return errors.New("it isn't a list of settings, one a line")
	}
	fields, seen := doc.Content[0].Content, map[string]bool{}
	for i := 0; i+1 < len(fields); i += 2 {
		name, value := fields[i], fields[i+1]
		if seen[name.Value] {
			return fmt.Errorf("line %d: %.40s stands there twice", name.Line, name.Value)
		}
		seen[name.Value] = true
		if err := c.readField(name, value); err != nil {
			return fmt.Errorf("line %d: %.40s: %w", name.Line, name.Value, err)
		}
	}
	if !seen[schemaKey] {
		return errNoSchema
	}
	return nil
}

const schemaKey = "schema_version"

var errNoSchema = errors.New("it has no " + schemaKey)

func (c *Config) readField(name, value *yaml.Node) error {
	if value.Kind != yaml.ScalarNode || name.Kind != yaml.ScalarNode || value.Anchor != "" || name.Anchor != "" {
		return errors.New("a setting has one value, written out")
	}
	if name.Value == schemaKey {
		if value.Value != SchemaVersion {
			return fmt.Errorf("this agent reads %s, not %.20q", SchemaVersion, value.Value)
		}
		return nil
	}
	key, ok := keys[name.Value]
	if !ok {
		return errors.New("this agent doesn't know it")
	}
	return key.apply(c, value.Value)
}
