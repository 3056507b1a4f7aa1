package composefs

import (
	"errors"
	"fmt"
)

// unescape adds a dump's field to dst, with its escapes undone: \\, \n, \r, \t and \xXX.
func unescape(dst, field []byte) ([]byte, error) {
	for i := 0; i < len(field); i++ {
		c := field[i]
		if c != '\\' {
			dst = append(dst, c)
			continue
		}
		if i++; i == len(field) {
			return dst, errors.New("nothing after a backslash")
		}
		switch field[i] {
		case '\\':
			dst = append(dst, '\\')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'x':
			if i+2 >= len(field) {
				return dst, errors.New(`want two hexadecimal digits after \x`)
			}
			high, low := unhexAny(field[i+1]), unhexAny(field[i+2])
			if high < 0 || low < 0 {
				return dst, errors.New(`want two hexadecimal digits after \x`)
			}
			dst = append(dst, byte(high<<4|low))
			i += 2
		default:
			return dst, fmt.Errorf("unknown escape \\%c", field[i])
		}
	}
	return dst, nil
}

// unhexAny returns the value of a hexadecimal digit in either case, or -1.
func unhexAny(c byte) int {
	if 'A' <= c && c <= 'F' {
		c += 'a' - 'A'
	}
	return unhex(c)
}

// How a field is escaped.
const (
	optionalField = 1 << iota // a lone dash would mean "absent"
	xattrField                // an equals sign would end the name
)

// appendEscaped adds s to dst as a dump's field.
func appendEscaped[T string | []byte](dst []byte, s T, how int) []byte {
	const digits = "0123456789abcdef"
	if how&optionalField != 0 && len(s) == 1 && s[0] == '-' {
		return append(dst, `\x2d`...)
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c == '\\':
			dst = append(dst, `\\`...)
		case c == '\n':
			dst = append(dst, `\n`...)
		case c == '\r':
			dst = append(dst, `\r`...)
		case c == '\t':
			dst = append(dst, `\t`...)
		case c <= ' ' || c >= 0x7f || c == '=' && how&xattrField != 0:
			dst = append(dst, '\\', 'x', digits[c>>4], digits[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return dst
}
