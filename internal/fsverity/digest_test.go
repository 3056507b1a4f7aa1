package fsverity

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestDigestText(t *testing.T) {
	d := SumBytes([]byte("hello"))
	if got, err := ParseDigest(d.String()); err != nil || got != d {
		t.Errorf("ParseDigest(%s) = %s, %v", d, got, err)
	}
	if path := d.ObjectPath(); strings.ReplaceAll(path, "/", "") != d.String() || path[2] != '/' || len(path) != 65 {
		t.Errorf("ObjectPath = %q", path)
	}
	for _, in := range []struct{ A, B Digest }{{d, Digest{}}, {Digest{}, d}} {
		text, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		out := in
		out.A, out.B = out.B, out.A
		if err := json.Unmarshal(text, &out); err != nil || out != in {
			t.Errorf("%s came back as %v, %v", text, out, err)
		}
	}
}

func TestParseDigestRefuses(t *testing.T) {
	good := SumBytes(nil).String()
	for _, s := range []string{"", "0", good[1:], good + "0", strings.ToUpper(good), "g" + good[1:], good[:62] + "é"} {
		if d, err := ParseDigest(s); err == nil {
			t.Errorf("ParseDigest(%q) = %s", s, d)
		}
		var d Digest
		if err := d.UnmarshalText([]byte(s)); err == nil && s != "" {
			t.Errorf("UnmarshalText(%q) = %s", s, d)
		}
	}
}

func FuzzParseDigest(f *testing.F) {
	f.Add("")
	f.Add(SumBytes(nil).String())
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := ParseDigest(s); err == nil && d.String() != s {
			t.Errorf("ParseDigest(%q) = %s", s, d)
		}
	})
}
