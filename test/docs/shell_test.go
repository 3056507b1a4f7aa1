package docs

import "strings"

// simpleCommand is one command of a shell text: its words, quotes taken off.
type simpleCommand struct {
	// line counts from 1 within the text.
	line  int
	words []string
}

// commands splits a shell text into simple commands, as far as documents need it: quotes,
// backslashes, comments, and the operators that end a command. Redirections are dropped.
func commands(text string) []simpleCommand {
	var all []simpleCommand
	current := simpleCommand{line: 1}
	var word strings.Builder
	inWord, redirect := false, false
	line := 1
	endWord := func() {
		if inWord && !redirect {
			if len(current.words) == 0 {
				current.line = line
			}
			current.words = append(current.words, word.String())
		}
		if inWord {
			redirect = false
		}
		word.Reset()
		inWord = false
	}
	endCommand := func() {
		endWord()
		if len(current.words) > 0 {
			all = append(all, current)
		}
		current, redirect = simpleCommand{}, false
	}
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\\' && i+1 < len(text):
			i++
			if text[i] == '\n' {
				line++
				endWord()
				continue
			}
			word.WriteByte(text[i])
			inWord = true
		case c == '\'' || c == '"':
			end := strings.IndexByte(text[i+1:], c)
			if end < 0 {
				end = len(text) - i - 1
			}
			quoted := text[i+1 : i+1+end]
			word.WriteString(quoted)
			line += strings.Count(quoted, "\n")
			i += end + 1
			inWord = true
		case c == '#' && !inWord:
			end := strings.IndexByte(text[i:], '\n')
			if end < 0 {
				end = len(text) - i
			}
			i += end - 1
		case c == '\n':
			endCommand()
			line++
		case c == ' ' || c == '\t':
			endWord()
		case c == '>' || c == '<':
			endWord()
			redirect = true
		case strings.IndexByte("|;&()", c) >= 0:
			endCommand()
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	endCommand()
	return all
}
