package identity

import (
	"context"
	"fmt"
	"strings"
)

// Cmdline is the kernel command line: powernode.instance_uuid, powernode.bootstrap_token,
// powernode.platform_url, and powernode.ca_pem (best in base64, since a command line has no line
// ends) or powernode.ca_file (an absolute path).
type Cmdline struct {
	// Path is the file to read; "" is /proc/cmdline.
	Path string
}

// Name returns "cmdline".
func (Cmdline) Name() string { return "cmdline" }

const (
	cmdlinePrefix = "powernode."
	// maxCmdline is far above any architecture's COMMAND_LINE_SIZE.
	maxCmdline = 64 << 10
)

var cmdlineKeys = map[field]string{
	fieldInstanceID: "instance_uuid", fieldToken: "bootstrap_token", fieldPlatformURL: "platform_url",
	fieldCA: "ca_pem", fieldCAFile: "ca_file",
}

// Find reads the parameters.
func (c Cmdline) Find(context.Context) (Found, error) {
	path := c.Path
	if path == "" {
		path = "/proc/cmdline"
	}
	text, err := readFile(path, maxCmdline)
	switch {
	case absent(err):
		return Found{}, NotFound("there is no %s", path)
	case err != nil:
		return Found{}, err
	}
	cl, err := parseCmdline(string(text))
	if err != nil {
		return Found{}, err
	}
	if cl.empty() {
		return Found{}, NotFound("no identity among the powernode.* parameters")
	}
	if cl.caFile != "" && !strings.HasPrefix(cl.caFile, "/") {
		return Found{}, fmt.Errorf("powernode.ca_file %.100q isn't an absolute path", cl.caFile)
	}
	found, err := cl.check(path)
	if err == nil && !found.Token.IsZero() {
		found.Warnings = append(found.Warnings, "every process can read a bootstrap token on the kernel command line")
	}
	return found, err
}

// parseCmdline picks the identity's parameters. As for the kernel's own, "-" and "_" are the same
// in a name and the last of several wins.
func parseCmdline(line string) (claims, error) {
	values := map[string]string{}
	for _, p := range splitCmdline(line) {
		name, ok := strings.CutPrefix(p.name, cmdlinePrefix)
		if !ok {
			continue
		}
		if p.open {
			return claims{}, fmt.Errorf("the quote in %s%.40s isn't closed", cmdlinePrefix, name)
		}
		values[strings.ReplaceAll(name, "-", "_")] = strings.TrimSpace(p.value)
	}
	get := func(f field) string { return values[cmdlineKeys[f]] }
	return claims{
		instanceID: get(fieldInstanceID), token: get(fieldToken), platformURL: get(fieldPlatformURL),
		ca: get(fieldCA), caFile: get(fieldCAFile),
		key: func(f field) string { return cmdlinePrefix + cmdlineKeys[f] },
	}, nil
}

// parameter is one word of the command line; open says that a quote in it was never closed.
type parameter struct {
	name, value string
	open        bool
}

// splitCmdline follows the kernel's next_arg (lib/cmdline.c): words end at white space outside
// double quotes; a word is cut at its first "=", so that a value may hold more of them; quotes
// around the word or its value are taken off; what follows "--" is for init. Beyond the kernel, the
// value of a powernode.* parameter may be in single quotes.
func splitCmdline(line string) []parameter {
	var out []parameter
	for i := 0; ; {
		for i < len(line) && isSpace(line[i]) {
			i++
		}
		if i == len(line) {
			return out
		}
		start, equals := i, -1
		var quote byte
		ours := strings.HasPrefix(line[start:], cmdlinePrefix)
		for ; i < len(line) && (quote != 0 || !isSpace(line[i])); i++ {
			switch c := line[i]; {
			case quote == 0 && (c == '"' || c == '\'' && ours && equals >= 0 && i == equals+1):
				quote = c
			case c == quote:
				quote = 0
			case c == '=' && equals < 0:
				equals = i
			}
		}
		word := line[start:i]
		if word == "--" {
			return out
		}
		out = append(out, newParameter(word, quote != 0))
	}
}

func newParameter(word string, open bool) parameter {
	if strings.HasPrefix(word, `"`) {
		word = strings.TrimSuffix(word[1:], `"`)
	}
	name, value, _ := strings.Cut(word, "=")
	if strings.HasPrefix(value, `"`) {
		value = strings.TrimSuffix(value[1:], `"`)
	} else if strings.HasPrefix(value, "'") && strings.HasPrefix(name, cmdlinePrefix) {
		value = strings.TrimSuffix(value[1:], "'")
	}
	return parameter{name: name, value: value, open: open}
}

// isSpace is the kernel's isspace for ASCII.
func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }
