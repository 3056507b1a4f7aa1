package nodeapi

import "strings"

// ParseClaimCode reads a claim code as people type it: in either case, with hyphens and spaces. It
// returns the code as the wire has it, and whether s is one.
func ParseClaimCode(s string) (code string, ok bool) {
	if len(s) > 4*ClaimCodeLength {
		return "", false
	}
	letters := make([]byte, 0, len(s))
	for _, c := range []byte(s) {
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		switch {
		case c == '-', c == ' ':
		case strings.IndexByte(ClaimAlphabet, c) < 0:
			return "", false
		default:
			letters = append(letters, c)
		}
	}
	return string(letters), len(letters) == ClaimCodeLength
}

// ShowClaimCode returns a claim code as people read it: "ABCD-EFGH".
func ShowClaimCode(code string) string {
	if len(code) != ClaimCodeLength {
		return code
	}
	return code[:ClaimCodeLength/2] + "-" + code[ClaimCodeLength/2:]
}
