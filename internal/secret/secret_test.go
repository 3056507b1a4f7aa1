package secret

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const token = "hXk2-Zz_9QpLm0secretsecretsecret"

// holder has the secret where fmt can't call its methods.
type holder struct {
	Open   Text
	hidden Text
	deep   *struct{ t Text }
	list   []Text
	byName map[string]Text
}

func TestNothingShowsASecret(t *testing.T) {
	s := New(token)
	h := holder{Open: s, hidden: s, deep: &struct{ t Text }{s}, list: []Text{s}, byName: map[string]Text{"a": s}}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%p"} {
		fmt.Fprintf(&out, verb+"\n", s)
		fmt.Fprintf(&out, verb+"\n", &s)
		fmt.Fprintf(&out, verb+"\n", h)
		fmt.Fprintf(&out, verb+"\n", &h)
	}
	fmt.Fprintln(&out, fmt.Errorf("enroll with %v: %w", s, fmt.Errorf("%v", h)))
	for _, enc := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(enc).Info("enroll", "token", s, "holder", h, "pointer", &h, "any", slog.AnyValue(s))
	}
	if err := json.NewEncoder(&out).Encode(h); err != nil {
		t.Fatal(err)
	}
	if err := json.NewEncoder(&out).Encode(map[string]any{"token": s, "p": &s}); err != nil {
		t.Fatal(err)
	}
	if err := xml.NewEncoder(&out).Encode(s); err != nil {
		t.Fatal(err)
	}
	got := out.String()
	for _, leak := range []string{token, fmt.Sprintf("%x", token), fmt.Sprintf("%X", token), fmt.Sprintf("%d", []byte(token))} {
		if strings.Contains(got, leak) {
			t.Errorf("the secret shows as %q in:\n%s", leak, got)
		}
	}
	if !strings.Contains(got, Redacted) {
		t.Errorf("no %q in:\n%s", Redacted, got)
	}
}

func TestText(t *testing.T) {
	var none Text
	if !none.IsZero() || none.Reveal() != "" || none.String() != "" || !New("").IsZero() {
		t.Errorf("the zero value isn't empty: %q", none.Reveal())
	}
	if s := New(token); s.IsZero() || s.Reveal() != token || !s.Equal(New(token)) || s.Equal(none) || s.Equal(New(token+"x")) {
		t.Error("a secret doesn't hold, or doesn't compare")
	}
	if b, err := json.Marshal(none); err != nil || string(b) != `""` {
		t.Errorf("json of none = %s, %v", b, err)
	}
}
