package delta

import (
	"encoding"
	"testing"
)

type word interface {
	encoding.TextMarshaler
	encoding.TextUnmarshaler
}

// What is written as a word is read as the same again, and nothing else is.
func TestWordsAreReadAgain(t *testing.T) {
	for what, list := range map[string]struct {
		names []string
		at    func(i int) (written, read word)
	}{
		"kind":   {kindNames[:], func(i int) (word, word) { return new(Kind(i)), new(Kind(200)) }},
		"do":     {doNames[:], func(i int) (word, word) { return new(Do(i)), new(Do(200)) }},
		"change": {changeNames[:], func(i int) (word, word) { return new(Change(i)), new(Change(200)) }},
	} {
		for i, name := range list.names {
			written, read := list.at(i)
			text, err := written.MarshalText()
			if err != nil || string(text) != name {
				t.Errorf("%s %d: %q, %v", what, i, text, err)
			}
			if err := read.UnmarshalText(text); err != nil {
				t.Errorf("%s %q: %v", what, name, err)
			}
			if again, err := read.MarshalText(); err != nil || string(again) != name {
				t.Errorf("%s %q: read as %q, %v", what, name, again, err)
			}
			if err := read.UnmarshalText([]byte(name + "x")); err == nil {
				t.Errorf("%s %q is read", what, name+"x")
			}
		}
	}
}
