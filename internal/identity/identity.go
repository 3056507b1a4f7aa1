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

// Found is what one source says. An empty field is one that it says nothing about.
type Found struct {
	// InstanceID is the node instance's UUID, lower case.
	InstanceID string
	Token      secret.Text
	// PlatformURL is as nodehttp.ParsePlatformURL returns it.
	PlatformURL string
	// CAPEM is a PEM bundle that nodehttp.ParseCAs accepts.
	CAPEM []byte
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
	// From tells the source of each field.
	From Provenance `json:"from"`
}

// Provenance names the source of each field of an Identity; "" where the field is empty.
type Provenance struct {
	InstanceID  string `json:"instance_id,omitempty"`
	Token       string `json:"bootstrap_token,omitempty"`
	PlatformURL string `json:"platform_url,omitempty"`
	CA          string `json:"ca,omitempty"`
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
	if len(i.CAPEM) == 0 {
		m = append(m, "CA certificate")
	}
	if i.Token.IsZero() {
		m = append(m, "bootstrap token")
	}
	return m
}
