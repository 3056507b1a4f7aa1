package nodeconfig

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

const head = blockBegin + blockNotice + "\n"

func TestMerge(t *testing.T) {
	for _, c := range []struct {
		name, file, want string
		lines            []string
		added, removed   string
	}{
		{"nothing of nothing", "", "", nil, "", ""},
		{"a new file", "", head + "k1\nk2\n" + blockEnd + "\n", []string{"k1", "k2"}, "k1 k2", ""},
		{"local lines", "local\n", "local\n" + head + "k1\n" + blockEnd + "\n", []string{"k1"}, "k1", ""},
		{"no line end", "local", "local\n" + head + "k1\n" + blockEnd + "\n", []string{"k1"}, "k1", ""},
		{"bytes of any kind", "a\r\n\xff\x00\n\n", "a\r\n\xff\x00\n\n" + head + "k1\n" + blockEnd + "\n", []string{"k1"}, "k1", ""},
		{
			"in its place", "a\n" + head + "k1\nk2\n" + blockEnd + "\nb", "a\n" + head + "k2\nk3\n" + blockEnd + "\nb",
			[]string{"k2", "k3"},
			"k3", "k1",
		},
		{"in step", "a\n" + head + "k1\n" + blockEnd + "\nb", "a\n" + head + "k1\n" + blockEnd + "\nb", []string{"k1"}, "", ""},
		{"another notice", blockBegin + ": x\r\nk1\r\n" + blockEnd + "\r\n", blockBegin + ": x\r\nk1\r\n" + blockEnd + "\r\n", []string{"k1"}, "", ""},
		{"edited inside", "a\n" + head + "mine\nk1\n" + blockEnd + "\n", "a\n" + head + "k1\n" + blockEnd + "\n", []string{"k1"}, "", "mine"},
		{"another order", head + "k1\nk2\n" + blockEnd + "\n", head + "k2\nk1\n" + blockEnd + "\n", []string{"k2", "k1"}, "", ""},
		{"taken away", "a\n" + head + "k1\n" + blockEnd + "\nb\n", "a\nb\n", nil, "", "k1"},
		{"an empty block", "a\n" + head + blockEnd + "\n", "a\n", nil, "", ""},
		{"words like it", "# BEGIN powernodes\n", "# BEGIN powernodes\n" + head + "k1\n" + blockEnd + "\n", []string{"k1"}, "k1", ""},
	} {
		m, err := Merge([]byte(c.file), c.lines)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if string(m.Data) != c.want || m.Changed != (c.file != c.want) || strings.Join(m.Added, " ") != c.added || strings.Join(m.Removed, " ") != c.removed {
			t.Errorf("%s: %q, changed %v, +%q -%q", c.name, m.Data, m.Changed, m.Added, m.Removed)
		}
		again, err := Merge(m.Data, c.lines)
		if err != nil || again.Changed || !bytes.Equal(again.Data, m.Data) {
			t.Errorf("%s: again: %q, %v", c.name, again.Data, err)
		}
	}
	for _, file := range []string{head, blockEnd + "\n", head + head + blockEnd, head + blockEnd + "\n" + blockEnd, head + blockEnd + "\n" + head + blockEnd, blockEnd + "\n" + head} {
		for _, lines := range [][]string{nil, {"k1"}} {
			if m, err := Merge([]byte(file), lines); err == nil {
				t.Errorf("%q becomes %q", file, m.Data)
			}
		}
	}
}

func FuzzMerge(f *testing.F) {
	f.Add([]byte("local\n"), "k1\nk2")
	f.Add([]byte("a\n"+head+"k1\n"+blockEnd+"\nb"), "k3")
	f.Add([]byte(head), "")
	f.Fuzz(func(t *testing.T, file []byte, text string) {
		// What is merged was parsed before: lines without ends, none of which begins a comment.
		lines := slices.DeleteFunc(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), func(s string) bool { return strings.HasPrefix(s, "#") })
		before, _, after, found, err := splitBlock(file)
		m, merr := Merge(file, lines)
		if (err == nil) != (merr == nil) {
			t.Fatalf("%v, %v", err, merr)
		}
		if err != nil {
			return
		}
		if !bytes.HasPrefix(m.Data, before) || found && !bytes.HasSuffix(m.Data, after) {
			t.Fatalf("%q lost local lines: %q", file, m.Data)
		}
		if !m.Changed && !bytes.Equal(m.Data, file) {
			t.Fatalf("%q became %q unsaid", file, m.Data)
		}
		again, err := Merge(m.Data, lines)
		if err != nil || again.Changed {
			t.Fatalf("%q again: changed %v, %v", m.Data, again.Changed, err)
		}
	})
}
