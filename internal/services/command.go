package services

import (
	"strings"
)

// mainPID is the one variable that isn't known before the service runs; systemd sets it for commands that stop it.
// mainPIDMark stands for it in a word: no text that was checked holds that character.
const (
	mainPID     = "MAINPID"
	mainPIDMark = "\x00"
)

// commandMax is the longest command line in bytes, before and after variables are replaced: the kernel takes twice that for one word, and
// systemd sixteen times that for a line of a unit.
const commandMax = 64 << 10

// words splits a command line of a manifest into the words of which systemd starts a program, without a shell. Spaces
// separate words, and a tab is refused as any control character is; single quotes take everything literally, double quotes all but backslashes and
// variables, and a backslash the character after it. $NAME and ${NAME} are replaced by the service's own env, as one
// piece of the word; a variable that isn't there is an error. What only a shell understands is refused where it isn't quoted.
func words(line string, env map[string]string) ([]string, error) {
	if len(line) > commandMax {
		return nil, refused("put it into a script", "the command is longer than %d bytes", commandMax)
	}
	if err := checkText(line); err != nil {
		return nil, err
	}
	s := &splitter{rest: line, env: env}
	for s.rest != "" {
		if err := s.step(); err != nil {
			return nil, err
		}
	}
	if s.double {
		return nil, refused("close it", "a double quote isn't closed")
	}
	s.end()
	if len(s.words) == 0 {
		return nil, refused("name a program", "the command is empty")
	}
	return s.words, nil
}

// splitter is where words is in a line.
type splitter struct {
	rest  string
	env   map[string]string
	words []string

	word     strings.Builder
	inWord   bool
	double   bool // between double quotes
	replaced int  // bytes of variables
}

func (s *splitter) end() {
	if s.inWord {
		s.words = append(s.words, s.word.String())
	}
	s.word.Reset()
	s.inWord = false
}

func (s *splitter) add(text string) {
	s.word.WriteString(text)
	s.inWord = true
}

// step takes the next character, and what belongs to it.
func (s *splitter) step() error {
	c := s.rest[0]
	s.rest = s.rest[1:]
	switch {
	case c == '$':
		return s.variable()
	case c == '\\':
		return s.escape()
	case s.double:
		switch c {
		case '"':
			s.double = false
		case '`':
			return onlyShell(c)
		default:
			s.add(string([]byte{c}))
		}
	case c == ' ':
		s.end()
	case c == '"':
		s.add("")
		s.double = true
	case c == '\'':
		text, after, closed := strings.Cut(s.rest, "'")
		if !closed {
			return refused("close it", "a single quote isn't closed")
		}
		s.add(text)
		s.rest = after
	case strings.IndexByte("|&;<>()`*?[#~", c) >= 0 && s.special(c):
		return onlyShell(c)
	default:
		s.add(string([]byte{c}))
	}
	return nil
}

// special reports whether a shell would see something in c here: # and ~ mean something only where a word begins.
func (s *splitter) special(c byte) bool { return c != '#' && c != '~' || !s.inWord }

func (s *splitter) escape() error {
	if s.rest == "" {
		return refused("remove it", "the command ends in a backslash")
	}
	c := s.rest[0]
	if s.double && strings.IndexByte("\"\\$`", c) < 0 {
		s.add(`\`)
		return nil
	}
	s.rest = s.rest[1:]
	s.add(string([]byte{c}))
	return nil
}

func onlyShell(c byte) error {
	return refused("quote it with '…', or give the line to a shell: /bin/sh -c '…'", "%q means something only to a shell, and none is started", string(rune(c)))
}

func (s *splitter) variable() error {
	var after string
	name := s.rest
	if inner, braced := strings.CutPrefix(s.rest, "{"); braced {
		var closed bool
		if name, after, closed = strings.Cut(inner, "}"); !closed {
			return refused("close it", "a ${ isn't closed")
		}
	} else {
		n := 0
		for n < len(name) && (name[n] == '_' || isAlphanumeric(name[n])) {
			n++
		}
		name, after = name[:n], name[n:]
	}
	value, ok := s.env[name]
	if !ok || name == "" {
		return refused("put it into the service's env, or quote it with '…'", "the variable $%.80s isn't in the service's env", name)
	}
	s.add(value)
	s.rest = after
	if s.replaced += len(value); s.replaced > commandMax {
		return refused("put it into a script", "the command is longer than %d bytes once its variables are replaced", commandMax)
	}
	return nil
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
