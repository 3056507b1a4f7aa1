package services

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/powernode/powernode-agent/internal/fault"
)

// refused is an error that a manifest asks for something that can't be done.
func refused(hint, format string, args ...any) error {
	return fault.New(fault.Refuse, fault.Service, hint, format, args...)
}

// checkText reports whether systemd reads s in a unit file as it is: it ends a line at each line break, and drops a
// line that isn't UTF-8 or holds what Unicode calls noncharacters (basic/utf8.c of systemd).
func checkText(s string) error {
	if !utf8.ValidString(s) {
		return refused("", "%.80q is not UTF-8", s)
	}
	for _, r := range s {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || r >= 0xFDD0 && r <= 0xFDEF || r&0xFFFE == 0xFFFE {
			return refused("remove them", "%.80q has control characters", s)
		}
	}
	return nil
}

var (
	inCommand    = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`, `$`, `$$`)
	inAssignment = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`)

	// bare are words that mean themselves wherever they stand.
	bare = regexp.MustCompile(`^[A-Za-z0-9_/.,:=+-]+$`)
	// pathForm are the paths that are written as they are: systemd takes the rest of the line, unquoted.
	pathForm = regexp.MustCompile(`^/[A-Za-z0-9_/.,:=+@~-]*$`)
)

// argument writes a word of a command line, which systemd.service(5) takes literally then: no specifier, variable or
// separator is found in it.
func argument(s string) string {
	if bare.MatchString(s) {
		return s
	}
	return `"` + strings.ReplaceAll(inCommand.Replace(s), mainPIDMark, "${"+mainPID+"}") + `"`
}

// assignment writes NAME=value for Environment=, where systemd replaces no variables (systemd.exec(5)).
func assignment(name, value string) string {
	return `"` + name + "=" + inAssignment.Replace(value) + `"`
}

// arguments writes a command line, the words of which have been checked.
func arguments(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = argument(w)
	}
	return strings.Join(out, " ")
}

// command writes a command line of a manifest for ExecStart= and its like.
func command(line string, env map[string]string) (string, error) {
	list, err := words(line, env)
	if err != nil {
		return "", err
	}
	if err := checkProgram(list[0]); err != nil {
		return "", err
	}
	return arguments(list), nil
}

var programForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.+-]*$`)

// checkProgram reports whether s can be the program of a command: an absolute path, or a name that systemd looks for where it looks
// for programs. What it would take for a prefix ("-", "@", "+", "!", ":", "|") can't be first in either.
func checkProgram(s string) error {
	if programForm.MatchString(s) || pathForm.MatchString(s) && !strings.HasSuffix(s, "/") {
		return nil
	}
	return refused("begin it with the program's absolute path", "%.80q is not a program", s)
}
