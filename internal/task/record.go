package task

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// Phase is how far a task is on this node.
type Phase string

// The phases.
const (
	Accepted   Phase = "accepted"   // leased, and never begun
	Begun      Phase = "begun"      // its handler was begun, and its end isn't known
	Restarting Phase = "restarting" // the next boot completes it
	Done       Phase = "done"       // its outcome is known, and the platform may not have it
	Settled    Phase = "settled"    // the platform has it, or will never take it
)

// recordVersion is the version of a record's form on the disk.
const recordVersion = 1

// maxRecord bounds a record on the disk: options and result as they are, output with every byte escaped.
const maxRecord = 4 << 20

// Record is what the disk knows of a task.
type Record struct {
	Version int `json:"version"`
	// Seq grows with each task that this node takes.
	Seq   uint64 `json:"seq"`
	Task  Task   `json:"task"`
	Phase Phase  `json:"phase"`
	// Runs counts how often the handler was begun, Boot names the boot in which it was last.
	Runs int    `json:"runs,omitempty"`
	Boot string `json:"boot,omitempty"`
	// BegunAt is when it was begun last, EndedAt when its outcome was known, by the node's clock: for people only.
	BegunAt time.Time `json:"begun_at,omitzero"`
	EndedAt time.Time `json:"ended_at,omitzero"`
	Outcome *Outcome  `json:"outcome,omitempty"`
	// Output is what of the output hadn't been told when the outcome was known; it begins at OutputOffset.
	Output       string `json:"output,omitempty"`
	OutputOffset int64  `json:"output_offset,omitempty"`
	// Known says that whoever is to hear of outcomes on this node has heard of this one.
	Known bool `json:"known,omitempty"`
}

// Outcome is what became of a task.
type Outcome struct {
	Success bool `json:"success"`
	// Code and Error say what went wrong.
	Code  nodeapi.FailCode `json:"code,omitempty"`
	Error string           `json:"error,omitempty"`
	// Result is a JSON object; nil is an empty one.
	Result json.RawMessage `json:"result,omitempty"`
}

// encode returns the record as it is on the disk: compact, since indenting nested options could make much of little, and with
// nothing escaped in them that wasn't.
func (r Record) encode() ([]byte, error) {
	r.Version = recordVersion
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(r)
	if err == nil && b.Len() > maxRecord {
		err = fmt.Errorf("%d bytes, at most %d are kept", b.Len(), maxRecord)
	}
	return b.Bytes(), err
}

// decodeRecord reads the record of a task.
func decodeRecord(data []byte, id string) (Record, error) {
	var r Record
	if err := durable.DecodeJSON(data, &r); err != nil {
		return Record{}, err
	}
	ended := r.Phase == Done || r.Phase == Settled
	switch {
	case r.Version != recordVersion:
		return Record{}, fmt.Errorf("version %d, want %d", r.Version, recordVersion)
	case r.Task.ID != id:
		return Record{}, fmt.Errorf("it is of the task %.80q", r.Task.ID)
	case !ended && r.Phase != Accepted && r.Phase != Begun && r.Phase != Restarting:
		return Record{}, fmt.Errorf("unknown phase %.40q", r.Phase)
	case ended != (r.Outcome != nil), r.Runs < 0, !ended && (r.Phase != Accepted) != (r.Runs > 0):
		return Record{}, fmt.Errorf("phase %q, %d runs and the outcome contradict each other", r.Phase, r.Runs)
	case r.Phase == Restarting && r.Boot == "":
		return Record{}, errors.New("it doesn't say in which boot the restart was asked for")
	case r.OutputOffset < 0, len(r.Output) > nodeapi.MaxTaskOutput:
		return Record{}, errors.New("more output than there may be")
	case r.Outcome != nil && checkObject(r.Outcome.Result, nodeapi.MaxTaskResult) != nil:
		return Record{}, errors.New("the result isn't a JSON object")
	}
	if err := r.Task.Check(); err != nil {
		return Record{}, err
	}
	return r, nil
}

// Check tells whether a task, as the platform sent it, has the form of one.
func (t Task) Check() error {
	if err := CheckID(t.ID); err != nil {
		return err
	}
	switch {
	case !isToken(t.Lease, maxLease):
		return fmt.Errorf("lease %.80q: want 1 to %d letters, digits and signs", t.Lease, maxLease)
	case !isToken(string(t.Kind), maxWord):
		return fmt.Errorf("kind %.80q: want 1 to %d letters, digits and signs", t.Kind, maxWord)
	case t.Attempt < 1:
		return fmt.Errorf("attempt %d: they count from 1", t.Attempt)
	case t.Deadline < 0:
		return fmt.Errorf("deadline %s: it has no sign", t.Deadline)
	case len(t.RequestedBy) > nodeapi.MaxTaskMessage || !utf8.ValidString(t.RequestedBy):
		return errors.New("who asked for it is no text of a name's length")
	}
	if err := checkObject(t.Options, nodeapi.MaxTaskOptions); err != nil {
		return fmt.Errorf("options: %w", err)
	}
	return nil
}

// CheckID tells whether a task's ID can be one: it is a name on the disk and a part of a URL.
func CheckID(id string) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	if id == "" || len(id) > maxID || strings.Trim(id, letters+"._-") != "" || !strings.Contains(letters, id[:1]) {
		return fmt.Errorf("task %.80q: want an ID of 1 to %d letters, digits, dots, hyphens and underscores", id, maxID)
	}
	return nil
}

// isToken tells whether s is a word of printing ASCII characters.
func isToken(s string, most int) bool {
	return s != "" && len(s) <= most && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

// checkObject refuses what isn't a JSON object, but for nothing at all.
func checkObject(data json.RawMessage, most int) error {
	switch {
	case len(data) == 0:
		return nil
	case len(data) > most:
		return fmt.Errorf("%d bytes, at most %d are taken", len(data), most)
	case !json.Valid(data) || bytes.TrimLeft(data, " \t\r\n")[0] != '{':
		return errors.New("not a JSON object")
	}
	return nil
}

// cutText returns text that is valid UTF-8 without a NUL, of at most so many bytes.
func cutText(s string, most int) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
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
