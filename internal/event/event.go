package event

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// Event is something that happened.
type Event struct {
	// Kind is a word such as "module.damaged": lower-case letters, digits, dots, hyphens and underscores.
	Kind     string
	Severity nodeapi.Severity // "" is nodeapi.SeverityInfo
	// Text is a sentence; "" is the kind.
	Text string
	// Fields are short strings by name.
	Fields map[string]string
	// At is when it happened; zero is now.
	At time.Time
	// Audit says that it is the record of a privileged action: it outlasts everything else.
	Audit bool
	// Key, if not "", says that another event of the same key is this one.
	Key string
}

// rank is how important an event is: the higher outlasts the lower.
type rank int

const (
	rankInfo rank = iota
	rankWarning
	rankError
	rankAudit
	ranks
)

func (e Event) rank() rank {
	switch {
	case e.Audit:
		return rankAudit
	case e.Severity == nodeapi.SeverityError:
		return rankError
	case e.Severity == nodeapi.SeverityWarning:
		return rankWarning
	}
	return rankInfo
}

// wire returns the event as it is told, with its ID.
func (e Event) wire(now time.Time) (nodeapi.Event, error) {
	if e.Severity == "" {
		e.Severity = nodeapi.SeverityInfo
	}
	if e.At.IsZero() {
		e.At = now
	}
	if e.Text == "" {
		e.Text = e.Kind
	}
	w := nodeapi.Event{ID: newID(e.Key), At: e.At.UTC(), Kind: e.Kind, Severity: e.Severity, Text: clip(e.Text, nodeapi.MaxEventText)}
	for _, name := range slices.Sorted(maps.Keys(e.Fields)) {
		if !isWord(name, nodeapi.MaxEventFieldName) || len(w.Fields) == nodeapi.MaxEventFields {
			continue
		}
		if w.Fields == nil {
			w.Fields = map[string]string{}
		}
		w.Fields[name] = clip(e.Fields[name], nodeapi.MaxEventFieldValue)
	}
	return w, check(w)
}

// check tells whether an event has the form of one.
func check(w nodeapi.Event) error {
	switch {
	case !isUUID(w.ID):
		return fmt.Errorf("ID %.80q: want a UUID", w.ID)
	case !isWord(w.Kind, nodeapi.MaxEventKind):
		return fmt.Errorf("kind %.80q: want lower-case letters, digits, dots, hyphens and underscores", w.Kind)
	case w.Severity != nodeapi.SeverityInfo && w.Severity != nodeapi.SeverityWarning && w.Severity != nodeapi.SeverityError:
		return fmt.Errorf("unknown severity %.40q", w.Severity)
	case w.Text == "", len(w.Text) > nodeapi.MaxEventText, !utf8.ValidString(w.Text):
		return fmt.Errorf("a text of %d bytes: want 1 to %d, of UTF-8", len(w.Text), nodeapi.MaxEventText)
	case len(w.Fields) > nodeapi.MaxEventFields:
		return fmt.Errorf("%d fields, at most %d are told", len(w.Fields), nodeapi.MaxEventFields)
	case !inCalendar(w.At):
		return errors.New("a time that no calendar has")
	}
	for name, value := range w.Fields {
		if !isWord(name, nodeapi.MaxEventFieldName) || len(value) > nodeapi.MaxEventFieldValue || !utf8.ValidString(value) {
			return fmt.Errorf("field %.80q is none", name)
		}
	}
	return nil
}

// inCalendar tells whether a time can be written down as RFC 3339.
func inCalendar(t time.Time) bool { return t.Year() >= 0 && t.Year() <= 9999 }

func isWord(s string, most int) bool {
	return s != "" && len(s) <= most && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789._-") == ""
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		want := "0123456789abcdef"
		if i == 8 || i == 13 || i == 18 || i == 23 {
			want = "-"
		}
		if strings.IndexByte(want, c) < 0 {
			return false
		}
	}
	return true
}

// newID returns a UUID: a random one (version 4), or for a key always the same (version 8; RFC 9562).
func newID(key string) string {
	var b [16]byte
	version := byte(0x40)
	if key == "" {
		_, _ = rand.Read(b[:]) // it never fails
	} else {
		sum := sha256.Sum256([]byte("powernode event\n" + key))
		copy(b[:], sum[:])
		version = 0x80
	}
	b[6], b[8] = b[6]&0x0f|version, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// clip returns text on one line, of at most so many bytes, in whole characters.
func clip(s string, most int) string {
	if len(s) > 4*most {
		s = s[:4*most]
	}
	s = fault.OneLine(strings.ToValidUTF8(s, "?"))
	if len(s) <= most {
		return s
	}
	const mark = "…"
	most -= len(mark)
	for !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + mark
}

// fileVersion is the version of an event's form on the disk.
const fileVersion = 1

// file is an event on the disk.
type file struct {
	Version int           `json:"version"`
	Event   nodeapi.Event `json:"event"`
}

// maxFile bounds an event on the disk, with every byte of it escaped.
const maxFile = 64 << 10

// decode reads an event off the disk.
func decode(data []byte) (nodeapi.Event, error) {
	var f file
	if err := durable.DecodeJSON(data, &f); err != nil {
		return nodeapi.Event{}, err
	}
	if f.Version != fileVersion {
		return nodeapi.Event{}, fmt.Errorf("version %d, want %d", f.Version, fileVersion)
	}
	return f.Event, check(f.Event)
}
