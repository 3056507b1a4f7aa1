package lease

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// Output is what a task has printed, as far as it is kept.
type Output struct {
	// Text is the last nodeapi.MaxTaskOutput bytes, with notes where something is missing.
	Text string
	// End is how many bytes of the present attempt's output are known.
	End int64
	// Dropped is how many bytes have left Text at its beginning.
	Dropped int64
}

// Append returns the output with a chunk that begins at offset bytes of the attempt's output. Bytes that are known are passed over;
// a gap is noted.
func Append(o Output, offset int64, chunk string) Output {
	end := offset + int64(len(chunk))
	switch {
	case chunk == "" || end <= o.End:
		return o
	case offset > o.End:
		o = o.add(fmt.Sprintf("\n[%d bytes were left out]\n", offset-o.End))
	default:
		chunk = chunk[o.End-offset:]
	}
	o.End = end
	return o.add(printable(chunk))
}

// Again returns the output before another attempt, which begins its own at 0.
func Again(o Output, attempt int) Output {
	o.End = 0
	if o.Text == "" {
		return o
	}
	return o.add(fmt.Sprintf("\n[attempt %d]\n", attempt))
}

// add appends a text, and drops what is too much at the beginning, by whole characters.
func (o Output) add(text string) Output {
	o.Text += text
	cut := len(o.Text) - nodeapi.MaxTaskOutput
	if cut <= 0 {
		return o
	}
	for cut < len(o.Text) && !utf8.RuneStart(o.Text[cut]) {
		cut++
	}
	o.Text, o.Dropped = o.Text[cut:], o.Dropped+int64(cut)
	return o
}

// printable takes from a text what would do something to a terminal or a database, and leaves its length.
func printable(text string) string {
	safe := func(c rune) bool { return c == '\n' || c == '\t' || unicode.IsPrint(c) && c != utf8.RuneError }
	if !strings.ContainsFunc(text, func(c rune) bool { return !safe(c) }) {
		return text
	}
	var b strings.Builder
	b.Grow(len(text))
	for len(text) > 0 {
		c, size := utf8.DecodeRuneInString(text)
		if safe(c) {
			b.WriteString(text[:size])
		} else {
			b.WriteString(strings.Repeat("?", size))
		}
		text = text[size:]
	}
	return b.String()
}
