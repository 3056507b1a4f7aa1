package task

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/powernode/powernode-agent/internal/nodeapi"
)

// receiver puts chunks together as the platform does.
type receiver struct {
	text string
	end  int64
	gaps int64
}

func (r *receiver) take(c Chunk) {
	end := c.Offset + int64(len(c.Text))
	if end <= r.end {
		return
	}
	if c.Offset > r.end {
		r.gaps += c.Offset - r.end
	} else {
		c.Text = c.Text[r.end-c.Offset:]
	}
	r.text, r.end = r.text+c.Text, end
}

// TestOutput: it arrives whole, in order and once, however often a chunk is sent.
func TestOutput(t *testing.T) {
	told := 0
	o := NewOutput(func() { told++ })
	var r receiver
	text := strings.Repeat("ÄÖ☃𝄞.", 20_000)
	for rest := text; rest != ""; {
		n := min(len(rest), 777) // in the middle of characters
		if _, err := o.Write([]byte(rest[:n])); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
		c := o.Next(1)
		again := o.Next(1)
		if c != again || !utf8.ValidString(c.Text) || len(c.Text) > maxChunk {
			t.Fatalf("%d bytes at %d, then %d at %d", len(c.Text), c.Offset, len(again.Text), again.Offset)
		}
		r.take(c)
		r.take(again)
		if n%2 == 1 {
			o.Taken()
		}
	}
	for more := true; more; more = o.Taken() {
		r.take(o.Next(1))
	}
	if r.text != text || r.gaps != 0 || told == 0 {
		t.Errorf("%d bytes of %d, %d missing, told %d times", len(r.text), len(text), r.gaps, told)
	}
	if o.Progress(150, "half\x00way\xff"); !o.Waiting() {
		t.Error("progress isn't told")
	}
	if c := o.Next(1); c.Percent != 100 || c.Message != "half\uFFFDway\uFFFD" || c.Text != "" || c.Offset != r.end {
		t.Errorf("%+v", c)
	}
	o.Progress(-1, "")
	if more := o.Taken(); !more {
		t.Error("what was said meanwhile is told as if it had been")
	}
	o.Next(1)
	if o.Taken() {
		t.Error("something is left")
	}
}

// TestOutputBeyondMeasure: what the platform doesn't take is bounded, and the last of it is kept.
func TestOutputBeyondMeasure(t *testing.T) {
	o := NewOutput(nil)
	if _, err := o.Write([]byte("begin ")); err != nil {
		t.Fatal(err)
	}
	first := o.Next(1)
	for range 40 {
		if _, err := o.Write([]byte(strings.Repeat("äx", 10_000))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := o.Write([]byte("the end\xe2\x98")); err != nil {
		t.Fatal(err)
	}
	o.Close()
	if _, err := o.Write([]byte("after")); err != nil {
		t.Fatal(err)
	}
	var r receiver
	for c, more := first, true; more; c = o.Next(1) {
		r.take(c)
		more = o.Taken()
	}
	if !strings.HasPrefix(r.text, "begin ") || !strings.HasSuffix(r.text, "the end\uFFFD") || !utf8.ValidString(r.text) || r.gaps == 0 || len(r.text) > nodeapi.MaxTaskOutput+100 {
		t.Errorf("%d bytes, %d missing, ends with %q", len(r.text), r.gaps, r.text[len(r.text)-20:])
	}
}

// TestOutputOfAnotherAttempt begins at 0 for the platform, with what it hasn't got; what a record has left goes on where it was.
func TestOutputOfAnotherAttempt(t *testing.T) {
	o := NewOutput(nil)
	write := func(s string) {
		t.Helper()
		if _, err := o.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	o.Next(1)
	o.Taken()
	write("two")
	if c := o.Next(1); c.Text != "two" || c.Offset != 3 {
		t.Errorf("%+v", c)
	}
	write("three")
	if text, offset := o.Left(); text != "twothree" || offset != 3 {
		t.Errorf("left %q at %d", text, offset)
	}
	if c := o.Next(2); c.Text != "two" || c.Offset != 0 {
		t.Errorf("in another attempt: %+v", c)
	}
	o.Taken()
	if c := o.Next(2); c.Text != "three" || c.Offset != 3 {
		t.Errorf("then: %+v", c)
	}
	old := OutputOf(Record{Task: Task{Attempt: 2}, Output: "left", OutputOffset: 40})
	if c := old.Next(2); c.Text != "left" || c.Offset != 40 {
		t.Errorf("of a record: %+v", c)
	}
	if c := old.Next(3); c.Text != "left" || c.Offset != 0 {
		t.Errorf("of a record, in another attempt: %+v", c)
	}
}

func FuzzOutput(f *testing.F) {
	f.Add([]byte("a\xc3\xa4\xff\xe2\x98\x83"), uint8(2))
	f.Add([]byte("\xf0\x9d\x84\x9e"), uint8(1))
	f.Fuzz(func(t *testing.T, data []byte, step uint8) {
		o := NewOutput(nil)
		var r receiver
		for rest := data; len(rest) > 0; {
			n := min(len(rest), int(step)+1)
			if _, err := o.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
			c := o.Next(1)
			if !utf8.ValidString(c.Text) {
				t.Fatalf("%q", c.Text)
			}
			r.take(c)
			o.Taken()
		}
		o.Close()
		r.take(o.Next(1))
		// However it is cut, the whole is the same, but for how many marks a broken character leaves.
		want := strings.ReplaceAll(strings.ToValidUTF8(string(data), "\uFFFD"), "\uFFFD", "")
		if got := strings.ReplaceAll(r.text, "\uFFFD", ""); got != want {
			t.Errorf("%q became %q", data, r.text)
		}
	})
}
