// Package userdata finds a node's identity in what a cloud or a host calls user-data: up to 64 KiB
// that a person, or a program that makes machines, gave to the machine when it was made.
//
// It promises that whatever the bytes are, reading them costs a bounded time and memory; that what
// is meant for another program (a shell script, a #cloud-config without a word for us) is told
// from what is meant for us and damaged; and that no error shows a value, since any may be the
// token. It trusts nothing, touches no file and no network, and doesn't judge the values: package
// identity does.
package userdata

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/powernode/powernode-agent/internal/identity"
)

const (
	// MaxBytes bounds the user-data as the machine gets it: what Azure and DigitalOcean allow, and
	// more than AWS (16 KiB) and Hetzner (32 KiB) do.
	MaxBytes = 64 << 10
	// MaxPlain bounds all that is unwrapped from it together, in bytes.
	MaxPlain = 256 << 10
	// MaxDepth bounds how many of gzip, base64, MIME messages and parts of one may be around each
	// other: base64 around gzip around a message with a part in gzip takes five.
	MaxDepth = 6
	// MaxParts bounds the parts of all MIME messages in it together.
	MaxParts = 64
)

// Parse returns what user-data says about the node, unchecked. It may be
//
//   - a JSON object with instance_uuid, bootstrap_token, platform_url, ca_pem, ca_url, ca_sha256,
//     proxy and clock, or with an object "powernode" that has them;
//   - powernode.* pairs of the same names, one a line or as on a kernel command line;
//   - the lines of an identity.cfg;
//   - a #cloud-config document with a mapping "powernode", or whose write_files writes
//     /etc/identity.cfg, and a CA_PEM_FILE that that one names;
//   - a MIME message, one part of which is any of these;
//   - any of these in gzip, in base64, or both, MaxDepth deep.
//
// The error is identity.ErrNotFound, with the reason, where the user-data says nothing about the
// node, and another one where it tries to and is damaged, too large, or says it in two places.
func Parse(data []byte) (identity.Raw, error) {
	if len(data) > MaxBytes {
		return identity.Raw{}, fmt.Errorf("the user-data is larger than %d bytes", MaxBytes)
	}
	p := parser{left: MaxPlain}
	nothing, err := p.read(data, 0)
	switch {
	case err != nil:
		return identity.Raw{}, fmt.Errorf("the user-data %w", err)
	case p.where == "":
		return identity.Raw{}, identity.NotFound("the user-data %s", nothing)
	}
	return p.found, nil
}

// parser reads one user-data. Its methods' errors, and what they say of a text in which nothing
// was found, go on from the words "the user-data".
type parser struct {
	left  int // bytes that may still be unwrapped
	parts int // MIME parts seen
	found identity.Raw
	where string // where found is from; "" as long as nothing was found
}

// set keeps what was found, and refuses a second finding: which of two would count is not for the
// machine to guess.
func (p *parser) set(where string, found identity.Raw) error {
	if p.where != "" {
		return fmt.Errorf("names the node's identity twice, in %s and in %s", p.where, where)
	}
	p.found, p.where = found, where
	return nil
}

var errTooLarge = fmt.Errorf("is larger than %d bytes when it is unpacked", MaxPlain)

// spend takes n bytes of what may still be unwrapped.
func (p *parser) spend(n int) error {
	if p.left -= n; p.left < 0 {
		return errTooLarge
	}
	return nil
}

// read looks at data that lies below depth wrappings. Where it finds nothing and no error, it
// says what data is.
func (p *parser) read(data []byte, depth int) (nothing string, err error) {
	if depth > MaxDepth {
		return "", fmt.Errorf("is wrapped more than %d times in gzip, base64 and MIME", MaxDepth)
	}
	if bytes.HasPrefix(data, gzipMagic) {
		plain, err := p.gunzip(data)
		if err != nil {
			return "", err
		}
		return p.read(plain, depth+1)
	}
	if !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0 {
		return "isn't a text", nil
	}
	text := strings.TrimSpace(strings.TrimPrefix(string(data), "\ufeff"))
	first, _, _ := strings.Cut(text, "\n")
	first = strings.TrimSpace(first)
	switch {
	case text == "":
		return "is empty", nil
	case strings.HasPrefix(first, "#!"):
		return "is a script", nil
	case first == "#cloud-config":
		return p.cloudConfig(text)
	case strings.HasPrefix(first, "## template:"):
		return "is a template for another program", nil
	case isOthers(first):
		return "is for another program", nil
	case text[0] == '{':
		return p.json(text)
	case isMIME(first):
		return p.mime(text, depth)
	}
	if plain, ok := decodeBase64(text); ok && (bytes.HasPrefix(plain, gzipMagic) || utf8.Valid(plain)) {
		if err := p.spend(len(plain)); err != nil {
			return "", err
		}
		return p.read(plain, depth+1)
	}
	return p.text(text)
}

// isOthers knows cloud-init's other kinds of user-data by their first line
// (cloud-init, doc/rtd/explanation/format).
func isOthers(first string) bool {
	for _, kind := range []string{"#cloud-config-", "#cloud-boothook", "#include", "#part-handler", "#upstart-job", "#ps1", "<powershell>"} {
		if strings.HasPrefix(first, kind) {
			return true
		}
	}
	return false
}

// mentions reports whether text may be meant for us at all. What doesn't is another program's, and
// its damages aren't ours to report.
func mentions(text string) bool {
	for _, word := range []string{"powernode", "identity.cfg", "bootstrap_token", "instance_uuid", "platform_url"} {
		if strings.Contains(text, word) {
			return true
		}
	}
	return false
}
