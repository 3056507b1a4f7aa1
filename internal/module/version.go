package module

import (
	"cmp"
	"strings"
)

// CompareVersions returns -1, 0 or 1 as version a is older than, as old as or newer than b, in the
// order that dpkg gives upstream versions (deb-version(7)): the two are read in turn as a part that
// holds no digit, then a number, then such a part again. Numbers compare by value, of any length. In the
// other parts "~" comes before everything, even the end; then comes the end, then letters, then all other
// characters, by their bytes. So 1.0~rc1 < 1.0 < 1.0-1 < 1.0.1 < 1.9 < 1.10.
//
// It is a total order of equals for any two strings: versions that differ only in leading zeros of a
// number are equal.
func CompareVersions(a, b string) int {
	for a != "" || b != "" {
		var textA, textB, numberA, numberB string
		textA, a = cutWhile(a, func(c byte) bool { return !isDigit(c) })
		textB, b = cutWhile(b, func(c byte) bool { return !isDigit(c) })
		if c := compareText(textA, textB); c != 0 {
			return c
		}
		numberA, a = cutWhile(a, isDigit)
		numberB, b = cutWhile(b, isDigit)
		if c := compareNumbers(numberA, numberB); c != 0 {
			return c
		}
	}
	return 0
}

// cutWhile cuts s before the first byte that isn't one of those.
func cutWhile(s string, is func(byte) bool) (before, after string) {
	i := 0
	for i < len(s) && is(s[i]) {
		i++
	}
	return s[:i], s[i:]
}

// compareText compares two parts without digits. What follows each is a digit or the end, which rank alike.
func compareText(a, b string) int {
	for i := range max(len(a), len(b)) {
		if c := cmp.Compare(textRank(a, i), textRank(b, i)); c != 0 {
			return c
		}
	}
	return 0
}

func textRank(s string, i int) int {
	switch {
	case i >= len(s):
		return 0
	case s[i] == '~':
		return -1
	case isAlphanumeric(s[i]):
		return int(s[i])
	default:
		return int(s[i]) + 256
	}
}

// compareNumbers compares two runs of digits by value; none is 0.
func compareNumbers(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}
