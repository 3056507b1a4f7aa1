package identity

import (
	"context"
	"fmt"
	"strings"

	"github.com/powernode/powernode-agent/internal/bootconfig"
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
	text, err := readFile(path, bootconfig.CmdlineMax)
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
	for _, p := range bootconfig.Split(line) {
		name, ok := p.Own()
		if !ok {
			continue
		}
		if p.Open {
			return claims{}, fmt.Errorf("the quote in %s%.40s isn't closed", bootconfig.Prefix, name)
		}
		values[name] = strings.TrimSpace(p.Value)
	}
	get := func(f field) string { return values[cmdlineKeys[f]] }
	return claims{
		instanceID: get(fieldInstanceID), token: get(fieldToken), platformURL: get(fieldPlatformURL),
		ca: get(fieldCA), caFile: get(fieldCAFile),
		key: func(f field) string { return bootconfig.Prefix + cmdlineKeys[f] },
	}, nil
}
