package agentcli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/powernode/powernode-agent/internal/change"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/nodeapi"
	"github.com/powernode/powernode-agent/internal/task"
)

// codePartial is the code of a task that was done in part.
const codePartial nodeapi.FailCode = "PARTIAL"

// taskAnswer is the shape of what do-task prints: what became of a command that it ran for a task.
type taskAnswer struct {
	// Task is whose answer it is.
	Task string `json:"task"`
	// Code is the command's exit code, Error what it said, Result what it printed.
	Code   int             `json:"code"`
	Error  *taskError      `json:"error,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	// Interrupted says that the command was told to end before it had, and isn't done.
	Interrupted bool `json:"interrupted,omitempty"`
}

// taskError is an error as commands print it for --output json.
type taskError struct {
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	Kind    string `json:"kind"`
}

// maxTaskError bounds a text of an error in an answer, in bytes.
const maxTaskError = 8 << 10

// printed takes what a command prints, up to a bound; of more only the number of bytes is known.
type printed struct {
	bytes.Buffer
	most int
	all  int64
}

// Write implements io.Writer.
func (p *printed) Write(b []byte) (int, error) {
	p.all += int64(len(b))
	if room := max(p.most-p.Len(), 0); room < len(b) {
		p.Buffer.Write(b[:room])
	} else {
		p.Buffer.Write(b)
	}
	return len(b), nil
}

// result returns what was printed as the result of a task, in as many bytes as one may have; nil where it is no document.
func (p *printed) result() json.RawMessage {
	if p.all > int64(p.Len()) {
		return leftOut(p.all)
	}
	if !json.Valid(p.Bytes()) {
		return nil
	}
	return fitting(bytes.TrimSpace(p.Bytes()))
}

func leftOut(size int64) json.RawMessage {
	return fmt.Appendf(nil, `{"left_out":["the result, which has %d bytes: the node doesn't keep that many"]}`, size)
}

// cut returns the error in as many bytes as one may have.
func (e *taskError) cut() *taskError {
	if e == nil {
		return nil
	}
	return &taskError{cutTo(e.Message, maxTaskError), cutTo(e.Hint, maxTaskError), cutTo(e.Kind, 64)}
}

func cutTo(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + "…"
}

// outcome returns what a task has come to by the answer of its command.
func (a *taskAnswer) outcome() (task.Result, error) {
	result := task.Result{}
	if len(a.Result) > 0 {
		result.Data = fitting(a.Result)
	}
	if a.Code == cli.ExitOK {
		return result, nil
	}
	if a.Error == nil {
		return result, a.part()
	}
	kind := fault.Broken
	for _, k := range []fault.Kind{fault.Retry, fault.Refuse} {
		if a.Error.Kind == k.String() {
			kind = k
		}
	}
	return result, fault.New(kind, fault.General, a.Error.Hint, "%s", a.Error.Message)
}

// part is the error of a command that has said by its result what it lacks.
func (a *taskAnswer) part() error {
	var doc struct {
		Outcome string `json:"outcome"`
		Failed  []struct {
			Name, Version, Reason string
		} `json:"failed"`
		Undone []string `json:"undone"`
		Parts  []struct {
			Part, Result, Error string
		} `json:"parts"`
	}
	text := fmt.Sprintf("the command ends with exit code %d", a.Code)
	if a.Code == cli.ExitPartial {
		text = "it is done in part"
	}
	// A result that says nothing of this kind is told as it is.
	if err := json.Unmarshal(a.Result, &doc); err == nil {
		var why []string
		if doc.Outcome == string(change.TakenBack) {
			why = append(why, "what went live wasn't confirmed, and was taken back")
		}
		for _, f := range doc.Failed {
			why = append(why, strings.TrimSpace(f.Name+" "+f.Version)+": "+f.Reason)
		}
		why = append(why, doc.Undone...)
		for _, p := range doc.Parts {
			if p.Error != "" {
				why = append(why, p.Part+": "+p.Error)
			}
		}
		if len(why) > 0 {
			text += ": " + strings.Join(why, "; ")
		}
	}
	err := errors.New(text)
	if a.Code == cli.ExitPartial {
		return task.Fail(codePartial, err)
	}
	return task.Fail(nodeapi.FailFailed, err)
}

// maxFields bounds the fields of a document that is shortened, which is encoded once for each that is left out. None of the commands' has half as many.
const maxFields = 64

// fitting returns a result as the platform takes it: what is long and can be had again is left out of one that is too long, then
// whatever is longest.
func fitting(result json.RawMessage) json.RawMessage {
	var compact bytes.Buffer
	if err := json.Compact(&compact, result); err == nil {
		result = compact.Bytes()
	}
	if len(result) <= nodeapi.MaxTaskResult {
		return result
	}
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(result, &doc); err != nil || len(doc) > maxFields {
		return leftOut(int64(len(result)))
	}
	return shorten(doc, "plan", "modules", "generations", "objects", "services")
}

// mostLeftOut bounds the names of what was left out that are told.
const mostLeftOut = 16

// shorten leaves fields out of a document until it can be told: those of these names first, in that order.
func shorten(doc map[string]json.RawMessage, names ...string) json.RawMessage {
	delete(doc, "left_out")
	cost := func(name string) int { return len(plain(name)) + len(doc[name]) + 2 }
	rest := slices.DeleteFunc(slices.Collect(maps.Keys(doc)), func(name string) bool { return slices.Contains(names, name) })
	slices.SortFunc(rest, func(a, b string) int { return cmp.Or(cost(b)-cost(a), strings.Compare(a, b)) })
	size := 0
	for name := range doc {
		size += cost(name)
	}
	left, more := []string{}, 0
	for _, name := range append(names, rest...) {
		if size <= nodeapi.MaxTaskResult-mostLeftOut*128 {
			break
		}
		if _, ok := doc[name]; !ok {
			continue
		}
		size -= cost(name)
		delete(doc, name)
		if len(left) < mostLeftOut-1 {
			left = append(left, cutTo(strings.ToValidUTF8(fault.OneLine(name), "?"), 40))
		} else {
			more++
		}
	}
	if more > 0 {
		left = append(left, fmt.Sprintf("and %d more", more))
	}
	doc["left_out"] = plain(left)
	return plain(doc)
}

// plain encodes what can be encoded, with nothing escaped that needn't be.
func plain(v any) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil
	}
	return bytes.TrimSpace(b.Bytes())
}
