package userdata

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"

	"github.com/powernode/powernode-agent/internal/bootconfig"
	"github.com/powernode/powernode-agent/internal/identity"
)

var errCAFile = errors.New("names the CA certificate by a file, which the machine may not have; give the certificate itself, or its URL and SHA-256")

// assign sets the field of raw that has this name in JSON, in powernode.* pairs and in a
// #cloud-config's mapping. Names that aren't known are for others, or for a later agent.
func assign(raw *identity.Raw, name, value string) error {
	if name == identity.FieldCAFile.String() && value != "" {
		return errCAFile
	}
	raw.Set(name, value)
	return nil
}

// json reads an object with our names at its top, or in an object "powernode".
func (p *parser) json(text string) (string, error) {
	const nothing = "is a JSON object that names no identity"
	if !mentions(text) {
		return nothing, nil
	}
	dec := json.NewDecoder(strings.NewReader(text))
	var top map[string]json.RawMessage
	if err := dec.Decode(&top); err != nil {
		return "", fmt.Errorf("isn't JSON after byte %d", dec.InputOffset())
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return "", errors.New("goes on after its JSON object")
	}
	if err := p.object("its JSON object", top); err != nil {
		return "", err
	}
	inner, ok := top["powernode"]
	if !ok {
		return nothing, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(inner, &fields); err != nil {
		return "", errors.New(`has a "powernode" that isn't a JSON object`)
	}
	return nothing, p.object(`its "powernode"`, fields)
}

func (p *parser) object(where string, fields map[string]json.RawMessage) error {
	var raw identity.Raw
	for _, f := range identity.Fields() {
		name := f.String()
		value, ok := fields[name]
		if !ok {
			continue
		}
		var s *string
		if err := json.Unmarshal(value, &s); err != nil {
			return fmt.Errorf("has a %s that isn't a string", name)
		}
		if s == nil {
			continue
		}
		if err := assign(&raw, name, *s); err != nil {
			return err
		}
	}
	if raw.IsZero() {
		return nil
	}
	return p.set(where, raw)
}

// text reads powernode.* pairs, or the lines of an identity.cfg. Lines that begin with "#" are
// comments in both.
func (p *parser) text(text string) (string, error) {
	const nothing = "names no identity"
	raw, err := pairs(text)
	if err != nil {
		return "", err
	}
	if !raw.IsZero() {
		return nothing, p.set("its powernode.* pairs", raw)
	}
	if !configLine.MatchString(text) {
		return nothing, nil
	}
	return nothing, p.config("its lines", text, nil)
}

func pairs(text string) (identity.Raw, error) {
	var raw identity.Raw
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(strings.TrimSpace(line), "#") {
			lines[i] = ""
		}
	}
	for _, w := range bootconfig.Split(strings.Join(lines, "\n")) {
		name, ok := w.Own()
		if !ok {
			continue
		}
		if w.Open {
			return raw, errors.New("has a powernode.* pair whose quote isn't closed")
		}
		if err := assign(&raw, name, w.Value); err != nil {
			return raw, err
		}
	}
	return raw, nil
}

// configLine is a line of an identity.cfg that makes a text one. PROXY and CLOCK alone could be
// anybody's.
var configLine = regexp.MustCompile(`(?m)^[ \t]*(export[ \t]+)?(ID|KEY|SERVER|CA_PEM|CA_PEM_FILE|CA_URL|CA_SHA256)[ \t]*=`)

// config reads the lines of an identity.cfg, called where. A CA file that it names must be one that the same
// user-data writes.
func (p *parser) config(where, text string, files []file) error {
	raw, err := identity.ParseFile([]byte(text))
	if err != nil {
		return fmt.Errorf("has a mistake in %s: %w", where, err)
	}
	if raw.CA != "" {
		raw.CAFile = ""
	}
	if raw.CAFile != "" {
		name := path.Join("/", raw.CAFile)
		if !path.IsAbs(raw.CAFile) {
			name = path.Join(path.Dir(where), raw.CAFile)
		}
		raw.CAFile = ""
		if raw.CA, err = p.caFile(name, files); err != nil {
			return err
		}
	}
	if raw.IsZero() {
		return nil
	}
	return p.set(where, raw)
}

// caFile returns the text of one of the files that the user-data writes.
func (p *parser) caFile(name string, files []file) (string, error) {
	for _, f := range files {
		if f.path == name {
			return p.content(f)
		}
	}
	return "", errCAFile
}
