// Package identity finds out who this node is: its instance, the platform it belongs to, the CA
// that proves the platform, and the bootstrap token that proves the node.
//
// A Source looks in one place; a Resolver asks sources in order and puts together what they say,
// field by field, keeping where each field came from and why a source said nothing. Every value is
// checked before it counts: a UUID, an https URL, a token of a token's characters, a PEM that
// parses. Reads are bounded, and a token prints as "redacted".
//
// It trusts the order of the sources: an earlier one overrules a later one. It decides nothing
// about enrolling; a node whose credentials on disk are usable (package enroll) needn't ask it.
package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/powernode/powernode-agent/internal/secret"
)

// ErrNotFound is what a Source's error is when the place it looks in doesn't exist on this machine
// or says nothing about the node. NotFound makes one that tells why.
var ErrNotFound = errors.New("no identity found")

type notFound struct{ reason string }

func (e notFound) Error() string   { return e.reason }
func (notFound) Is(err error) bool { return err == ErrNotFound }

// NotFound returns an error that is ErrNotFound and whose text is the reason.
func NotFound(format string, args ...any) error {
	return notFound{fmt.Sprintf(format, args...)}
}

// Source is one place that may know who the node is.
type Source interface {
	// Name is the source's word in reports and flags: "cmdline".
	Name() string
	// Find returns what the place says, checked; an error that is ErrNotFound where it says
	// nothing; and any other error where what it says is damaged or unreadable. Errors don't
	// repeat the source's name. It honours ctx.
	Find(ctx context.Context) (Found, error)
}

// Remote is a Source that has to ask another machine. It is asked only where this machine is known
// to be one that it answers to, or where a person asked for it by name.
type Remote interface {
	Source
	// Here reports whether this machine is such a one, and by what that is known: "the firmware says
	// Amazon EC2", or "the firmware doesn't say Amazon EC2". It asks nobody.
	Here() (here bool, why string)
}

// Found is what one source says. An empty field is one that it says nothing about.
type Found struct {
	// InstanceID is the node instance's UUID, lower case.
	InstanceID string
	Token      secret.Text
	// PlatformURL is as nodehttp.ParsePlatformURL returns it.
	PlatformURL string
	// CAPEM is a PEM bundle that nodehttp.ParseCAs accepts. Where CASHA256 is said too, all of its
	// certificates have one of those fingerprints.
	CAPEM []byte
	// CAURL is where a CA bundle can be had, and CASHA256 the fingerprints that the CA's certificates are known by, as
	// ParseFingerprints returns them.
	CAURL    CAURL
	CASHA256 []string
	Proxy    Proxy
	// Clock is "" where nothing is said of it.
	Clock Clock
	// DMIUUID is the UUID that the firmware gives the machine, lower case: a hint for whoever looks at
	// a list of machines, which proves nothing and names no instance.
	DMIUUID string
	// Where is the file or device that was read.
	Where string
	// Warnings are remarks for the person, in the style of an error's text.
	Warnings []string
}

// Identity is what is known of the node.
type Identity struct {
	// InstanceID may be "": the token then says which instance this is.
	InstanceID  string      `json:"instance_id,omitempty"`
	Token       secret.Text `json:"bootstrap_token,omitzero"`
	PlatformURL string      `json:"platform_url,omitempty"`
	CAPEM       []byte      `json:"-"`
	CAURL       CAURL       `json:"ca_url,omitzero"`
	CASHA256    []string    `json:"ca_sha256,omitempty"`
	Proxy       Proxy       `json:"proxy,omitzero"`
	Clock       Clock       `json:"clock,omitempty"`
	DMIUUID     string      `json:"dmi_uuid,omitempty"`
	// From tells the source of each field.
	From Provenance `json:"from"`
}

// Provenance names the source of each field of an Identity; "" where the field is empty.
type Provenance struct {
	InstanceID  string `json:"instance_id,omitempty"`
	Token       string `json:"bootstrap_token,omitempty"`
	PlatformURL string `json:"platform_url,omitempty"`
	// CA is the source of CAPEM.
	CA       string `json:"ca,omitempty"`
	CAURL    string `json:"ca_url,omitempty"`
	CASHA256 string `json:"ca_sha256,omitempty"`
	Proxy    string `json:"proxy,omitempty"`
	Clock    string `json:"clock,omitempty"`
	DMIUUID  string `json:"dmi_uuid,omitempty"`
}

// fields lists what f says.
func (f Found) fields() []string {
	var names []string
	for _, e := range []struct {
		name string
		said bool
	}{
		{"instance_id", f.InstanceID != ""},
		{"bootstrap_token", !f.Token.IsZero()},
		{"platform_url", f.PlatformURL != ""},
		{"ca", len(f.CAPEM) > 0},
		{"ca_url", !f.CAURL.IsZero()},
		{"ca_sha256", len(f.CASHA256) > 0},
		{"proxy", !f.Proxy.IsZero()},
		{"clock", f.Clock != ""},
		{"dmi_uuid", f.DMIUUID != ""},
	} {
		if e.said {
			names = append(names, e.name)
		}
	}
	return names
}

// LogValue gives a logger the fields that identify the node, the token redacted.
func (i Identity) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("instance_id", i.InstanceID),
		slog.String("platform_url", i.PlatformURL),
		slog.Any("bootstrap_token", i.Token),
		slog.Any("from", i.From),
	)
}

// missing lists what a node can't enroll without, in words.
func (i Identity) missing() []string {
	var m []string
	if i.PlatformURL == "" {
		m = append(m, "platform URL")
	}
	switch {
	case len(i.CAPEM) > 0 || len(i.CASHA256) > 0:
	case !i.CAURL.IsZero():
		m = append(m, "fingerprint of the CA certificate, which alone would prove what comes from its URL")
	default:
		m = append(m, "CA certificate")
	}
	if i.Token.IsZero() {
		m = append(m, "bootstrap token")
	}
	return m
}
