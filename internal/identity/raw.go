package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodehttp"
	"github.com/powernode/powernode-agent/internal/secret"
)

// Raw is what a source read, unchecked: texts without the white space around them, "" for what it
// doesn't say. It prints as "redacted", since the token or a password may be anywhere in it.
type Raw struct {
	InstanceID, Token, PlatformURL string
	// CA is a PEM bundle as text (with real or written "\n" line ends) or in base64; CAFile names
	// a file of one. CA wins.
	CA, CAFile string
	// CAURL is where a bundle can be had, CASHA256 the fingerprints that its certificates are known
	// by, separated by commas.
	CAURL, CASHA256 string
	Proxy, Clock    string
}

// Field is one field of a Raw.
type Field int

// The fields.
const (
	FieldInstanceID Field = iota
	FieldToken
	FieldPlatformURL
	FieldCA
	FieldCAFile
	FieldCAURL
	FieldCASHA256
	FieldProxy
	FieldClock
)

// names are the fields' names on the kernel command line, in fw_cfg, in SMBIOS strings, in systemd
// credentials and in user-data.
var names = [...]string{
	FieldInstanceID: "instance_uuid", FieldToken: "bootstrap_token", FieldPlatformURL: "platform_url",
	FieldCA: "ca_pem", FieldCAFile: "ca_file", FieldCAURL: "ca_url", FieldCASHA256: "ca_sha256",
	FieldProxy: "proxy", FieldClock: "clock",
}

// Fields returns all fields, in their order.
func Fields() []Field {
	all := make([]Field, len(names))
	for i := range all {
		all[i] = Field(i)
	}
	return all
}

// String returns the field's usual name, such as "bootstrap_token".
func (f Field) String() string {
	if f < 0 || int(f) >= len(names) {
		return fmt.Sprintf("field %d", int(f))
	}
	return names[f]
}

// At returns where the field is in r.
func (r *Raw) At(f Field) *string {
	return [...]*string{
		FieldInstanceID: &r.InstanceID, FieldToken: &r.Token, FieldPlatformURL: &r.PlatformURL,
		FieldCA: &r.CA, FieldCAFile: &r.CAFile, FieldCAURL: &r.CAURL, FieldCASHA256: &r.CASHA256,
		FieldProxy: &r.Proxy, FieldClock: &r.Clock,
	}[f]
}

// Set sets the field of that name, and reports whether there is one.
func (r *Raw) Set(name, value string) bool {
	i := slices.Index(names[:], name)
	if i < 0 {
		return false
	}
	*r.At(Field(i)) = strings.TrimSpace(value)
	return true
}

// IsZero reports whether nothing is said.
func (r Raw) IsZero() bool { return r == Raw{} }

// Format prints "redacted", whatever the verb.
func (Raw) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, secret.Redacted) }

// MarshalText writes "redacted", for encoders and loggers.
func (Raw) MarshalText() ([]byte, error) { return []byte(secret.Redacted), nil }

// Check turns r into a Found of the place where. The first field that is wrong makes the whole
// source's word worth nothing: half an identity of a damaged file isn't one. name gives the name
// that the source has for a field, for errors; nil is the usual one. A CAFile is read from the
// machine's file system as it is named; a source that has its files elsewhere reads it into CA
// first. Errors show neither token nor password.
func (r Raw) Check(where string, name func(Field) string) (Found, error) {
	if name == nil {
		name = Field.String
	}
	found := Found{Where: where}
	for _, c := range []struct {
		field Field
		take  func(string) error
	}{
		{FieldInstanceID, func(s string) (err error) { found.InstanceID, err = ParseInstanceID(s); return err }},
		{FieldToken, func(s string) (err error) { found.Token, err = ParseToken(s); return err }},
		{FieldPlatformURL, func(s string) (err error) { found.PlatformURL, err = nodehttp.ParsePlatformURL(s); return err }},
		{FieldCA, func(s string) (err error) { found.CAPEM, err = ParseCA(s); return err }},
		{FieldCAFile, func(s string) error { return found.readCA(s) }},
		{FieldCAURL, func(s string) (err error) { found.CAURL, err = ParseCAURL(s); return err }},
		{FieldCASHA256, func(s string) (err error) { found.CASHA256, err = ParseFingerprints(s); return err }},
		{FieldProxy, func(s string) (err error) { found.Proxy, err = ParseProxy(s); return err }},
		{FieldClock, func(s string) (err error) { found.Clock, err = ParseClock(s); return err }},
	} {
		value := *r.At(c.field)
		if value == "" {
			continue
		}
		if err := c.take(value); err != nil {
			return Found{}, fault.New(fault.Refuse, fault.Input, fault.HintOf(err), "%s: %w", name(c.field), err)
		}
	}
	if len(found.CAPEM) > 0 && len(found.CASHA256) > 0 {
		pem, err := SelectCAs(found.CAPEM, found.CASHA256)
		if err != nil {
			return Found{}, fault.New(fault.Refuse, fault.Input, "", "%s: %w", name(FieldCASHA256), err)
		}
		found.CAPEM = pem
	}
	return found, nil
}

func (f *Found) readCA(path string) error {
	if len(f.CAPEM) > 0 {
		return nil
	}
	text, err := readFile(path, nodehttp.MaxCABytes)
	if err == nil {
		f.CAPEM, err = ParseCA(string(text))
	}
	return err
}

// Clock says whose time certificates are judged by before the node is enrolled, and after.
type Clock string

// The clocks.
const (
	ClockPlatform Clock = "platform" // the platform's, signed by its CA; the default
	ClockLocal    Clock = "local"    // the machine's own
)

// ParseClock checks a clock's name.
func ParseClock(s string) (Clock, error) {
	switch c := Clock(s); c {
	case ClockPlatform, ClockLocal:
		return c, nil
	default:
		return "", fmt.Errorf("%.40q isn't known; it is %s or %s", s, ClockPlatform, ClockLocal)
	}
}

// maxFingerprints bounds the certificates that one is told to trust.
const maxFingerprints = 8

// ParseFingerprints reads SHA-256 fingerprints of certificates (the SHA-256 of the whole DER, as
// openssl x509 -fingerprint -sha256 prints it), separated by commas: 64 hexadecimal digits of either
// case, with or without colons between. It returns them in lower case without colons.
func ParseFingerprints(s string) ([]string, error) {
	var all []string
	for _, text := range strings.Split(s, ",") {
		digits := strings.ToLower(strings.TrimSpace(text))
		digits = strings.TrimPrefix(digits, "sha256:")
		digits = strings.ReplaceAll(digits, ":", "")
		if b, err := hex.DecodeString(digits); err != nil || len(b) != sha256.Size {
			return nil, fmt.Errorf("%.100q isn't a SHA-256 fingerprint, which has 64 hexadecimal digits", strings.TrimSpace(text))
		}
		if !slices.Contains(all, digits) {
			all = append(all, digits)
		}
	}
	if len(all) > maxFingerprints {
		return nil, fmt.Errorf("it has %d fingerprints, at most %d are allowed", len(all), maxFingerprints)
	}
	return all, nil
}
