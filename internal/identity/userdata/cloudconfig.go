package userdata

import (
	"encoding/base64"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/powernode/powernode-agent/internal/identity"
)

// cloudConfig reads a #cloud-config document. Only our own places in it are looked at, each at a
// fixed depth, and an alias is followed once, so that no web of aliases costs more than the bytes
// that it is written in.
func (p *parser) cloudConfig(text string) (string, error) {
	const nothing = "is a #cloud-config without a word for powernode"
	if !mentions(text) {
		return nothing, nil
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return "", fmt.Errorf("is a #cloud-config that isn't YAML%s", lineOf(err))
	}
	if len(doc.Content) == 0 {
		return nothing, nil
	}
	var files []file
	err := eachPair(doc.Content[0], "its #cloud-config", func(key string, value *yaml.Node) error {
		switch key {
		case "powernode":
			return p.mapping(value)
		case "write_files":
			var err error
			files, err = readFiles(value)
			return err
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	for _, f := range files {
		if !slices.Contains(identity.ConfigPaths(), f.path) {
			continue
		}
		plain, err := p.content(f)
		if err != nil {
			return "", err
		}
		if err := p.config(f.path, plain, files); err != nil {
			return "", err
		}
	}
	return nothing, nil
}

var yamlLine = regexp.MustCompile(`line \d+`)

// lineOf returns where the YAML library found a fault. The rest of its text may show a value.
func lineOf(err error) string {
	if line := yamlLine.FindString(err.Error()); line != "" {
		return " (" + line + ")"
	}
	return ""
}

// eachPair calls f with each key that is a text and its value, an alias followed.
func eachPair(n *yaml.Node, what string, f func(key string, value *yaml.Node) error) error {
	if n = follow(n); n.Kind != yaml.MappingNode {
		return fmt.Errorf("has %s, and it isn't a mapping of keys to values", what)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Kind != yaml.ScalarNode {
			continue
		}
		if err := f(n.Content[i].Value, follow(n.Content[i+1])); err != nil {
			return err
		}
	}
	return nil
}

func follow(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

// mapping reads the mapping "powernode".
func (p *parser) mapping(n *yaml.Node) error {
	var raw identity.Raw
	err := eachPair(n, `a key "powernode"`, func(key string, value *yaml.Node) error {
		key = strings.ReplaceAll(key, "-", "_")
		if !isName(key) {
			return nil
		}
		text, err := scalar(value, "powernode."+key)
		if err != nil {
			return err
		}
		return assign(&raw, key, text)
	})
	if err != nil || raw.IsZero() {
		return err
	}
	return p.set(`the mapping "powernode" of its #cloud-config`, raw)
}

func isName(key string) bool {
	return slices.ContainsFunc(identity.Fields(), func(f identity.Field) bool { return f.String() == key })
}

// scalar returns a value's text as it is written, so that a token of digits stays one.
func scalar(n *yaml.Node, what string) (string, error) {
	switch {
	case n.Kind != yaml.ScalarNode:
		return "", fmt.Errorf("has a %s that isn't a single value (line %d)", what, n.Line)
	case n.ShortTag() == "!!null":
		return "", nil
	case n.ShortTag() == "!!binary":
		plain, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(n.Value), ""))
		if err != nil {
			return "", fmt.Errorf("has a %s that isn't the base64 that it says (line %d)", what, n.Line)
		}
		return string(plain), nil
	}
	return n.Value, nil
}

// file is one entry of write_files.
type file struct {
	path, encoding string
	content        *yaml.Node
}

func readFiles(n *yaml.Node) ([]file, error) {
	if n.Kind != yaml.SequenceNode {
		return nil, errors.New("has a write_files that isn't a list")
	}
	files := make([]file, 0, len(n.Content))
	for _, entry := range n.Content {
		var f file
		err := eachPair(entry, "an entry of write_files", func(key string, value *yaml.Node) (err error) {
			switch key {
			case "path":
				f.path, err = scalar(value, "path in write_files")
			case "encoding":
				f.encoding, err = scalar(value, "encoding in write_files")
			case "content":
				f.content = value
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		if f.path = path.Clean(f.path); f.content != nil {
			files = append(files, f)
		}
	}
	return files, nil
}

// content decodes a file's content. The encodings' names are cloud-init's
// (cloudinit/config/cc_write_files.py).
func (p *parser) content(f file) (string, error) {
	text, err := scalar(f.content, f.path+" in write_files")
	if err != nil {
		return "", err
	}
	if err := p.spend(len(text)); err != nil {
		return "", err
	}
	zipped, coded := false, false
	switch strings.ToLower(strings.TrimSpace(f.encoding)) {
	case "", "text/plain":
	case "b64", "base64":
		coded = true
	case "gz", "gzip":
		zipped = true
	case "gz+b64", "gz+base64", "gzip+b64", "gzip+base64":
		zipped, coded = true, true
	default:
		return "", fmt.Errorf("has %q in write_files in an encoding that isn't known", f.path)
	}
	plain := []byte(text)
	if coded {
		var ok bool
		if plain, ok = decodeBase64(text); !ok {
			return "", fmt.Errorf("has %q in write_files that isn't the base64 that it says", f.path)
		}
	}
	if zipped {
		if plain, err = p.gunzip(plain); err != nil {
			return "", fmt.Errorf("has %q in write_files that %w", f.path, err)
		}
	}
	return string(plain), nil
}
