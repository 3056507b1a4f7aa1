package nodeconfig

import (
	"bytes"
	"errors"
	"slices"
	"strings"
)

// The lines that enclose what the platform has set. A reader takes a line that begins like the first for
// it, whatever it goes on with.
const (
	blockBegin  = "# BEGIN powernode"
	blockEnd    = "# END powernode"
	blockNotice = ": set by the platform; changes between these lines are lost"
)

// errBlock says that the platform's block can't be told from the rest.
var errBlock = errors.New("its lines \"" + blockBegin + "\" and \"" + blockEnd + "\" aren't one pair: repair or remove them")

// Merged is a file with the platform's block as it is to be.
type Merged struct {
	Data []byte
	// Changed says that Data isn't what was there.
	Changed bool
	// Added and Removed are the lines by which the block differs.
	Added, Removed []string
}

// Merge returns the file with lines in the platform's block, which stays in its place, or is added at the
// end. What stands outside of it is kept byte for byte; only where the last line has no end it gets one.
// Without lines there is no block. A file with half a block, or several, is an error.
func Merge(file []byte, lines []string) (Merged, error) {
	before, inside, after, found, err := splitBlock(file)
	if err != nil {
		return Merged{}, err
	}
	var was []string
	for line := range strings.Lines(string(inside)) {
		was = append(was, strings.TrimRight(line, "\r\n"))
	}
	m := Merged{Data: file, Added: without(lines, was), Removed: without(was, lines)}
	if slices.Equal(was, lines) && found == (len(lines) > 0) {
		return m, nil
	}
	m.Changed = true
	var b bytes.Buffer
	b.Write(before)
	if len(lines) > 0 {
		if n := len(before); n > 0 && before[n-1] != '\n' {
			b.WriteByte('\n')
		}
		b.WriteString(blockBegin + blockNotice + "\n")
		for _, line := range lines {
			b.WriteString(line + "\n")
		}
		b.WriteString(blockEnd + "\n")
	}
	b.Write(after)
	m.Data = b.Bytes()
	return m, nil
}

// splitBlock cuts a file into what is before, between and after the lines of the block.
func splitBlock(file []byte) (before, inside, after []byte, found bool, err error) {
	before = file
	begin, from, to, end, at := -1, 0, -1, 0, 0
	for line := range bytes.Lines(file) {
		next := at + len(line)
		switch text := string(bytes.TrimRight(line, "\r\n")); {
		case text == blockBegin || strings.HasPrefix(text, blockBegin+":"):
			if begin >= 0 {
				return nil, nil, nil, false, errBlock
			}
			begin, from = at, next
		case text == blockEnd:
			if begin < 0 || to >= 0 {
				return nil, nil, nil, false, errBlock
			}
			to, end = at, next
		}
		at = next
	}
	switch {
	case begin < 0:
		return before, nil, nil, false, nil
	case to < 0:
		return nil, nil, nil, false, errBlock
	}
	return file[:begin], file[from:to], file[end:], true, nil
}

func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}
