package delta

import (
	"fmt"
	"slices"
	"strings"
)

// UnmarshalText reads the JSON form.
func (k *Kind) UnmarshalText(text []byte) error { return parse(k, kindNames[:], text) }

// UnmarshalText reads the JSON form.
func (d *Do) UnmarshalText(text []byte) error { return parse(d, doNames[:], text) }

// UnmarshalText reads the JSON form.
func (c *Change) UnmarshalText(text []byte) error { return parse(c, changeNames[:], text) }

func parse[T ~uint8](to *T, names []string, text []byte) error {
	i := slices.Index(names, string(text))
	if i < 0 {
		return fmt.Errorf("%.40q is none of %s", text, strings.Join(names, ", "))
	}
	*to = T(i)
	return nil
}
