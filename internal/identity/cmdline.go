package identity

import (
	"context"
	"fmt"
	"strings"

	"github.com/powernode/powernode-agent/internal/bootconfig"
)

// Cmdline is the kernel command line: powernode.NAME=VALUE with the usual names of the fields. ca_pem is
// best in base64, since a command line has no line ends; ca_file is an absolute path.
type Cmdline struct {
	// Path is the file to read; "" is /proc/cmdline.
	Path string
}

// Name returns "cmdline".
func (Cmdline) Name() string { return "cmdline" }

// Find reads the parameters.
func (c Cmdline) Find(context.Context) (Found, error) {
	path := c.Path
	if path == "" {
		path = "/proc/cmdline"
	}
	text, err := readFile(path, bootconfig.CmdlineMax)
	switch {
	case absent(err):
		return Found{}, NotFound("there is no %s", path)
	case err != nil:
		return Found{}, err
	}
	raw, err := ParseCmdline(string(text))
	if err != nil {
		return Found{}, err
	}
	if raw.IsZero() {
		return Found{}, NotFound("no identity among the powernode.* parameters")
	}
	if raw.CAFile != "" && !strings.HasPrefix(raw.CAFile, "/") {
		return Found{}, fmt.Errorf("powernode.ca_file %.100q isn't an absolute path", raw.CAFile)
	}
	found, err := raw.Check(path, func(f Field) string { return bootconfig.Prefix + f.String() })
	if err == nil && !found.Token.IsZero() {
		found.Warnings = append(found.Warnings, "every process can read a bootstrap token on the kernel command line")
	}
	return found, err
}

// ParseCmdline picks the identity's parameters, powernode.NAME=VALUE with the usual names of the
// fields. As for the kernel's own, "-" and "_" are the same in a name and the last of several wins.
func ParseCmdline(line string) (Raw, error) {
	var raw Raw
	for _, p := range bootconfig.Split(line) {
		name, ok := p.Own()
		if !ok {
			continue
		}
		if p.Open {
			return Raw{}, fmt.Errorf("the quote in %s%.40s isn't closed", bootconfig.Prefix, name)
		}
		if name == "ca" { // what the existing platform's netboot script says instead
			name = FieldCAURL.String()
		}
		raw.Set(name, p.Value)
	}
	return raw, nil
}
