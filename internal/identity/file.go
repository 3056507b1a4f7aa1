package identity

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// File is an identity.cfg: lines NAME=VALUE with ID (the instance's UUID), KEY (the bootstrap
// token), SERVER (the platform's URL) and CA_PEM or CA_PEM_FILE (the CA certificate; the path may
// be relative to the file). "#" begins a comment, "export " before a name is allowed, a value may be in
// single or double quotes and then span lines. Other names are left to others.
type File struct {
	// Path is the file to read.
	Path string
}

// ConfigPaths returns where an identity.cfg is looked for on a machine, in the order in which they count. A cloud-config that
// writes one of them means the same.
func ConfigPaths() []string {
	return []string{"/boot/identity.cfg", "/etc/identity.cfg", "/persist/etc/identity.cfg"}
}

// Name returns "file:" and the path.
func (f File) Name() string { return "file:" + f.Path }

const maxFile = 64 << 10

var fileKeys = map[Field]string{
	FieldInstanceID: "ID", FieldToken: "KEY", FieldPlatformURL: "SERVER", FieldCA: "CA_PEM", FieldCAFile: "CA_PEM_FILE",
	FieldCAURL: "CA_URL", FieldCASHA256: "CA_SHA256", FieldProxy: "PROXY", FieldClock: "CLOCK",
}

// FileKey returns the name that an identity.cfg has for a field, such as "KEY".
func FileKey(f Field) string { return fileKeys[f] }

// Find reads the file.
func (f File) Find(context.Context) (Found, error) {
	text, err := readFile(f.Path, maxFile)
	switch {
	case absent(err):
		return Found{}, NotFound("there is no such file")
	case err != nil:
		return Found{}, err
	}
	raw, err := ParseFile(text)
	if err != nil {
		return Found{}, err
	}
	if raw.IsZero() {
		return Found{}, NotFound("the file names none of ID, KEY, SERVER, CA_PEM, CA_PEM_FILE, CA_URL, CA_SHA256")
	}
	if raw.CAFile != "" && !filepath.IsAbs(raw.CAFile) {
		raw.CAFile = filepath.Join(filepath.Dir(f.Path), raw.CAFile)
	}
	found, err := raw.Check(f.Path, FileKey)
	if err == nil && !found.Token.IsZero() {
		// A FAT boot partition gives every file the same mode, so this is no reason to refuse.
		if info, err := os.Stat(f.Path); err == nil && info.Mode().Perm()&0o044 != 0 {
			found.Warnings = append(found.Warnings, fmt.Sprintf("others can read the file, which holds a bootstrap token (mode %#o)", info.Mode().Perm()))
		}
	}
	return found, err
}

// ParseFile reads the text of an identity.cfg. Errors name a line and never show it, because it may
// hold the token. Raw.CAFile is as it stands there: relative to the file, if not absolute.
func ParseFile(text []byte) (Raw, error) {
	var raw Raw
	values, err := parseFile(text)
	if err != nil {
		return raw, err
	}
	for f, key := range fileKeys {
		*raw.At(f) = values[key]
	}
	return raw, nil
}

// parseFile returns the names and values. As in a shell, the last of several wins. Errors name a
// line and never show it, because it may hold the token.
func parseFile(text []byte) (map[string]string, error) {
	if bytes.IndexByte(text, 0) >= 0 {
		return nil, fmt.Errorf("it isn't a text file")
	}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	rest := strings.ReplaceAll(string(text), "\r\n", "\n")
	values := map[string]string{}
	for n := 1; rest != ""; n++ {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if after, ok := strings.CutPrefix(line, "export"); ok && after != "" && isSpace(after[0]) {
			line = strings.TrimSpace(after)
		}
		name, value, ok := strings.Cut(line, "=")
		if name = strings.TrimSpace(name); !ok || !isName(name) {
			return nil, fmt.Errorf("line %d is neither NAME=VALUE nor a comment", n)
		}
		value = strings.TrimSpace(value)
		if value == "" || value[0] != '"' && value[0] != '\'' {
			if i := strings.Index(value, " #"); i >= 0 {
				value = strings.TrimSpace(value[:i])
			}
			values[name] = value
			continue
		}
		first, quote := n, value[:1]
		value, after, closed := strings.Cut(value[1:], quote)
		if !closed {
			var more string
			if more, rest, closed = strings.Cut(rest, quote); !closed {
				return nil, fmt.Errorf("the quote that line %d opens isn't closed", first)
			}
			value, n = value+"\n"+more, n+1+strings.Count(more, "\n")
			after, rest, _ = strings.Cut(rest, "\n")
		}
		if after = strings.TrimSpace(after); after != "" && after[0] != '#' {
			return nil, fmt.Errorf("line %d goes on after the closing quote", n)
		}
		values[name] = strings.TrimSpace(value)
	}
	return values, nil
}

func isName(s string) bool {
	for i, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_':
		case c >= '0' && c <= '9' && i > 0:
		default:
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// isSpace is the C locale's isspace.
func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }
