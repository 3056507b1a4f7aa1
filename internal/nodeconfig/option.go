package nodeconfig

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// optionValue says what stands behind an option's name.
type optionValue struct {
	// wanted says that a value in double quotes must be there; otherwise none may.
	wanted bool
	// once says that sshd refuses the line if the option comes twice.
	once bool
	form *regexp.Regexp
}

// options are those that an OpenSSH 10 knows (sshd(8), AUTHORIZED_KEYS FILE FORMAT). With any other sshd
// refuses the whole line, so that the key wouldn't count.
var options = map[string]optionValue{
	"agent-forwarding": {}, "no-agent-forwarding": {},
	"port-forwarding": {}, "no-port-forwarding": {},
	"pty": {}, "no-pty": {},
	"user-rc": {}, "no-user-rc": {},
	"x11-forwarding": {}, "no-x11-forwarding": {},
	"no-touch-required": {}, "verify-required": {}, "restrict": {}, "cert-authority": {},
	"command":      {wanted: true, once: true},
	"from":         {wanted: true, once: true},
	"principals":   {wanted: true, once: true},
	"environment":  {wanted: true, form: regexp.MustCompile(`^[A-Za-z0-9_]+=`)},
	"expiry-time":  {wanted: true, once: true, form: regexp.MustCompile(`^[0-9]{8}([0-9]{4}([0-9]{2})?)?Z?$`)},
	"permitlisten": {wanted: true, form: regexp.MustCompile(`^([^ ]+:)?([0-9]{1,5}|\*)$`)},
	"permitopen":   {wanted: true, form: regexp.MustCompile(`^([^ ]+:)?([0-9]{1,5}|\*)$`)},
	"tunnel":       {wanted: true, once: true, form: regexp.MustCompile(`^([0-9]{1,9}|any)$`)},
}

// cutOptions cuts the options off the beginning of a line, the way sshd finds their end: at the first
// blank outside of double quotes, in which \" is a double quote.
func cutOptions(line string) (found, rest string, err error) {
	quoted := false
	end := len(line)
	for i := 0; i < len(line); i++ {
		c := line[i]
		if !quoted && (c == ' ' || c == '\t') {
			end = i
			break
		}
		switch {
		case c == '\\' && i+1 < len(line) && line[i+1] == '"':
			i++
		case c == '"':
			quoted = !quoted
		}
	}
	if quoted {
		return "", "", errors.New("a double quote isn't closed")
	}
	found, rest = line[:end], strings.TrimLeft(line[end:], " \t")
	if rest == "" {
		return "", "", errors.New("it holds no key")
	}
	return found, rest, checkOptions(found)
}

// checkOptions refuses what sshd would refuse.
func checkOptions(text string) error {
	seen := make(map[string]bool)
	for more := true; more; {
		name := text
		if i := strings.IndexAny(text, `=,`); i >= 0 {
			name = text[:i]
		}
		rest := text[len(name):]
		// Their case doesn't matter to sshd.
		key := strings.ToLower(name)
		kind, known := options[key]
		if !known {
			return fmt.Errorf("%.40q is neither a type of key nor an option that sshd knows", name)
		}
		if kind.once && seen[key] {
			return fmt.Errorf("the option %s is there twice", key)
		}
		seen[key] = true
		value, behind, err := cutValue(rest)
		switch {
		case err != nil:
			return fmt.Errorf("option %s: %w", key, err)
		case kind.wanted && value == "":
			return fmt.Errorf("the option %s wants a value in double quotes", key)
		case !kind.wanted && strings.HasPrefix(rest, "="):
			return fmt.Errorf("the option %s takes no value", key)
		case kind.form != nil && !kind.form.MatchString(value):
			return fmt.Errorf("the option %s can't be %.60q", key, value)
		}
		text, more = strings.CutPrefix(behind, ",")
		if !more && behind != "" {
			return fmt.Errorf("behind the option %s: want a comma or a blank", key)
		}
	}
	return nil
}

// cutValue cuts ="value" off, with \" in it for a double quote. Without it the value is "".
func cutValue(s string) (value, rest string, err error) {
	s, ok := strings.CutPrefix(s, "=")
	if !ok {
		return "", s, nil
	}
	if s, ok = strings.CutPrefix(s, `"`); !ok {
		return "", s, errors.New("its value isn't in double quotes")
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], nil
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == '"':
			i++
		}
		b.WriteByte(s[i])
	}
	return "", "", errors.New("its value has no end")
}
