package signature

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// jsonDepthMax is how deep the JSON that this package reads may nest.
const jsonDepthMax = 64

// checkJSON reports whether data is one JSON value in which no object has the same key twice, the
// case of letters aside. Where a key stands twice, two programs may read two different things
// from the same signed bytes; encoding/json would silently take the last.
func checkJSON(data []byte) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := checkValue(dec, 0); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON value")
	}
	return nil
}

func checkValue(dec *json.Decoder, depth int) error {
	if depth > jsonDepthMax {
		return fmt.Errorf("the JSON nests deeper than %d", jsonDepthMax)
	}
	token, err := dec.Token()
	if err != nil {
		return noEOF(err)
	}
	open, ok := token.(json.Delim)
	if !ok {
		return nil
	}
	keys := map[string]bool{}
	for dec.More() {
		if open == '{' {
			token, err := dec.Token()
			if err != nil {
				return noEOF(err)
			}
			name, _ := token.(string)
			folded := strings.Map(fold, name)
			if keys[folded] {
				return fmt.Errorf("the key %.60q stands twice in one JSON object", name)
			}
			keys[folded] = true
		}
		if err := checkValue(dec, depth+1); err != nil {
			return err
		}
	}
	_, err = dec.Token() // the closing bracket
	return noEOF(err)
}

// fold maps all letters that encoding/json takes for one another to the same one: it goes by
// Unicode's simple folding, so that "\u017fubject", with a long s, is "subject" too.
func fold(r rune) rune {
	for {
		next := unicode.SimpleFold(r)
		if next <= r {
			return next
		}
		r = next
	}
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
