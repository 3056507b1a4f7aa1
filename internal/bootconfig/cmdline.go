package bootconfig

import "strings"

// CmdlineMax bounds the kernel command line in bytes, far above any architecture's
// COMMAND_LINE_SIZE.
const CmdlineMax = 64 << 10

// Prefix is what the names of our own parameters begin with.
const Prefix = "powernode."

// Parameter is one word of the kernel command line, cut at its first "=".
type Parameter struct {
	Name, Value string
	// Open says that a quote in the word was never closed.
	Open bool
}

// Own returns the name of one of our own parameters without the prefix, with "-" as "_" as in the
// kernel's own, and false for anybody else's.
func (p Parameter) Own() (string, bool) {
	name, ok := strings.CutPrefix(p.Name, Prefix)
	return strings.ReplaceAll(name, "-", "_"), ok
}

// Split returns the words of a kernel command line as the kernel's next_arg (lib/cmdline.c) sees
// them: they end at white space outside double quotes; a word is cut at its first "=", so that a
// value may hold more of them; quotes around the word or its value are taken off; what follows "--"
// is for init. Beyond the kernel, the value of a powernode.* parameter may be in single quotes.
func Split(line string) []Parameter {
	var out []Parameter
	for i := 0; ; {
		for i < len(line) && isSpace(line[i]) {
			i++
		}
		if i == len(line) {
			return out
		}
		start, equals := i, -1
		var quote byte
		ours := strings.HasPrefix(line[start:], Prefix)
		for ; i < len(line) && (quote != 0 || !isSpace(line[i])); i++ {
			switch c := line[i]; {
			case quote == 0 && (c == '"' || c == '\'' && ours && equals >= 0 && i == equals+1):
				quote = c
			case c == quote:
				quote = 0
			case c == '=' && equals < 0:
				equals = i
			}
		}
		word := line[start:i]
		if word == "--" {
			return out
		}
		out = append(out, newParameter(word, quote != 0))
	}
}

// Values returns the values of every parameter of that name, in order; "" for one without "=".
func Values(parameters []Parameter, name string) []string {
	var out []string
	for _, p := range parameters {
		if p.Name == name {
			out = append(out, p.Value)
		}
	}
	return out
}

func newParameter(word string, open bool) Parameter {
	if strings.HasPrefix(word, `"`) {
		word = strings.TrimSuffix(word[1:], `"`)
	}
	name, value, _ := strings.Cut(word, "=")
	if strings.HasPrefix(value, `"`) {
		value = strings.TrimSuffix(value[1:], `"`)
	} else if strings.HasPrefix(value, "'") && strings.HasPrefix(name, Prefix) {
		value = strings.TrimSuffix(value[1:], "'")
	}
	return Parameter{Name: name, Value: value, Open: open}
}

// isSpace is the kernel's isspace for ASCII.
func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }
