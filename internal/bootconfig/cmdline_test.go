package bootconfig

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string // name|value, with ! where a quote stayed open
	}{
		{"", nil},
		{" \t\n", nil},
		{"ro quiet", []string{"ro|", "quiet|"}},
		{"a=b  c=d\n", []string{"a|b", "c|d"}},
		{"a=b=c==", []string{"a|b=c=="}},
		{`a="b c" d`, []string{"a|b c", "d|"}},
		{`"a=b c" d`, []string{"a|b c", "d|"}},
		{`a=b" c"d e`, []string{`a|b" c"d`, "e|"}},
		{`a='b c' d`, []string{"a|'b", "c'|", "d|"}},
		{`powernode.a='b c' d`, []string{"powernode.a|b c", "d|"}},
		{`powernode.a=it's d`, []string{"powernode.a|it's", "d|"}},
		{`powernode.a='b "c' d`, []string{`powernode.a|b "c`, "d|"}},
		{`a="b c`, []string{"a|b c!"}},
		{`a= b`, []string{"a|", "b|"}},
		{`=b`, []string{"|b"}},
		{"a=1 -- b=2", []string{"a|1"}},
		{"a=1 --b=2", []string{"a|1", "--b|2"}},
		{"a=1\vb=2\fc", []string{"a|1", "b|2", "c|"}},
	} {
		var got []string
		for _, p := range Split(c.in) {
			s := p.Name + "|" + p.Value
			if p.Open {
				s += "!"
			}
			got = append(got, s)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%q: %s", c.in, d)
		}
	}
}
