package task

import (
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// maxChunk is how many bytes of output are told at once.
const maxChunk = 32 << 10

// Output gathers what a task says in one run until the platform has it. It implements Out. What the platform can't take
// as fast as it is said is kept up to nodeapi.MaxTaskOutput bytes: the last ones, as there.
type Output struct {
	// told hears that there is something to tell where there was nothing.
	told func()

	mu sync.Mutex
	// attempt is the one that the platform was told the last chunk of: it counts each attempt's output from 0, which is at base.
	attempt int
	base    int64
	// chunk is on its way, at offset in the whole output; it stays the same until it has arrived. text follows it, from
	// next on: what was dropped is missing between the two. partial is the beginning of a character whose rest is to come.
	offset  int64
	chunk   string
	next    int64
	text    []byte
	partial []byte
	closed  bool

	percent int
	message string
	// fresh says that percent and message haven't been told; sent that they are on their way.
	fresh, sent bool
}

// NewOutput returns an empty Output; told may be nil, and may not wait for anybody.
func NewOutput(told func()) *Output {
	if told == nil {
		told = func() {}
	}
	return &Output{told: told}
}

// OutputOf returns what a record had left to tell.
func OutputOf(r Record) *Output {
	return &Output{told: func() {}, attempt: r.Task.Attempt, next: r.OutputOffset, text: []byte(r.Output), closed: true}
}

// Write implements io.Writer: what isn't UTF-8 becomes U+FFFD.
func (o *Output) Write(p []byte) (int, error) {
	o.change(func() {
		for rest := p; len(rest) > 0; {
			// In pieces, so that much output takes no more memory than what is kept of it.
			n := min(len(rest), maxChunk)
			data := append(o.partial, rest[:n]...)
			rest = rest[n:]
			whole := wholeRunes(data)
			o.append(string(data[:whole]))
			o.partial = append([]byte(nil), data[whole:]...)
		}
	})
	return len(p), nil
}

// Progress implements Out.
func (o *Output) Progress(percent int, message string) {
	o.change(func() {
		o.percent, o.fresh, o.sent = min(max(percent, 0), 100), true, false
		if message != "" {
			o.message = cutText(message, nodeapi.MaxTaskMessage)
		}
	})
}

// change does something to the output while it is open, and tells if there is something to tell then where there was nothing.
func (o *Output) change(do func()) {
	o.mu.Lock()
	had := o.waiting()
	if !o.closed {
		do()
	}
	now := o.waiting()
	o.mu.Unlock()
	if now && !had {
		o.told()
	}
}

func (o *Output) append(s string) {
	o.text = append(o.text, strings.ToValidUTF8(s, "\uFFFD")...)
	drop := len(o.text) - nodeapi.MaxTaskOutput
	if drop <= 0 {
		return
	}
	for drop < len(o.text) && !utf8.RuneStart(o.text[drop]) {
		drop++
	}
	o.next += int64(drop)
	o.text = append([]byte(nil), o.text[drop:]...)
}

// wholeRunes returns how much of data ends with a whole character, or with what can't become one.
func wholeRunes(data []byte) int {
	for i := len(data) - 1; i >= 0 && i > len(data)-utf8.UTFMax; i-- {
		if utf8.RuneStart(data[i]) {
			if !utf8.FullRune(data[i:]) {
				return i
			}
			break
		}
	}
	return len(data)
}

// Close ends the output: what is said from now on is dropped.
func (o *Output) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed && len(o.partial) > 0 {
		o.append("\uFFFD")
	}
	o.closed, o.partial = true, nil
}

// Chunk is a part of a task's output on its way to the platform, with how far the task is.
type Chunk struct {
	Percent int
	Message string
	Text    string
	// Offset is where Text begins in the attempt's output, in bytes.
	Offset int64
}

// Next returns what is to be told next in an attempt: the same text at the same place until Taken. It may be empty.
func (o *Output) Next(attempt int) Chunk {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.chunk == "" && len(o.text) > 0 {
		n := min(len(o.text), maxChunk)
		for n < len(o.text) && !utf8.RuneStart(o.text[n]) {
			n--
		}
		o.chunk, o.offset = string(o.text[:n]), o.next
		o.text, o.next = o.text[n:], o.next+int64(n)
	}
	if o.chunk == "" {
		o.offset = o.next
	}
	if o.attempt != attempt {
		if o.attempt != 0 {
			o.base = o.offset
		}
		o.attempt = attempt
	}
	o.sent = true
	return Chunk{Percent: o.percent, Message: o.message, Text: o.chunk, Offset: o.offset - o.base}
}

// Taken says that the platform has what Next returned last, and returns whether there is more.
func (o *Output) Taken() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.chunk = ""
	if o.sent {
		o.fresh = false
	}
	return o.waiting()
}

// Waiting returns whether there is something to tell.
func (o *Output) Waiting() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.waiting()
}

func (o *Output) waiting() bool { return o.chunk != "" || len(o.text) > 0 || o.fresh }

// Left returns the text that the platform isn't known to have, and where it begins.
func (o *Output) Left() (text string, offset int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.chunk == "" || o.offset+int64(len(o.chunk)) != o.next || len(o.chunk)+len(o.text) > nodeapi.MaxTaskOutput {
		return string(o.text), o.next - o.base
	}
	return o.chunk + string(o.text), o.offset - o.base
}
