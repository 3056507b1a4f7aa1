package external

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/powernode/powernode-agent/internal/fault"
)

func TestParseURL(t *testing.T) {
	for in, want := range map[string]string{
		"https://Registry.example": "https://registry.example", "https://registry.example:5000/team/a/": "https://registry.example:5000/team/a",
		"http://127.0.0.1:5000": "http://127.0.0.1:5000", "http://localhost/x": "http://localhost/x", "http://[::1]:5000": "http://[::1]:5000",
		"http://registry.example": "", "http://127.0.0.1.example": "", "ftp://127.0.0.1": "", "registry.example": "", "https://": "",
		"https://user:secret@registry.example": "", "https://registry.example?a": "", "https://registry.example#a": "", "https://registry.example/Team": "", "https://r/a/../b": "", "https://%zz": "",
	} {
		u, err := ParseURL(in)
		switch {
		case want == "" && (err == nil || fault.HintOf(err) == "" || strings.Contains(err.Error(), "secret")):
			t.Errorf("%s: %v, %v", in, u, err)
		case want != "" && (err != nil || u.Scheme+"://"+strings.TrimSuffix(u.Host+"/"+u.Path, "/") != want):
			t.Errorf("%s: %v, %v", in, u, err)
		}
	}
}

func TestParseCredentials(t *testing.T) {
	c, err := ParseCredentials([]byte(`{"username": "a", "password": "b:c", "nodes": {"username": "n", "password": "m"}}`))
	if err != nil || c.Platform.Username != "a" || c.Platform.Password.Reveal() != "b:c" || c.Nodes.Password.Reveal() != "m" {
		t.Errorf("%v, %v", c, err)
	}
	for _, bad := range []string{"", "secret", `{"user": "secret"}`, `{"username": "a"}`, `{"password": "secret"}`, `{"nodes": {"username": "a"}}`, `{"username": "a:b", "password": "secret"}`, `{"username": "a", "password": "secret\n"}`} {
		if _, err := ParseCredentials([]byte(bad)); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func FuzzParseCredentials(f *testing.F) {
	f.Add([]byte(`{"username": "a", "password": "b", "nodes": {"username": "n", "password": "m"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseCredentials(data)
		if err == nil && (c.Platform.Username == "") != c.Platform.Password.IsZero() {
			t.Errorf("half a user of %q", data)
		}
	})
}

// TestRegistryThatLies has a registry that sends other bytes than the digest's, and a token service that gives the password back. Neither
// gets further, and no error holds the password.
func TestRegistryThatLies(t *testing.T) {
	const password = "the-platforms-password"
	var s *httptest.Server
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			fmt.Fprintf(w, `{"token": "for-%s"}`, password)
		case r.Header.Get("Authorization") == "":
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token",service="test"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			fmt.Fprint(w, `{"schemaVersion": 2}`)
		}
	}))
	defer s.Close()
	file := filepath.Join(t.TempDir(), "credentials.json")
	if err := os.WriteFile(file, []byte(`{"username": "platform", "password": "`+password+`"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	u, err := ParseURL(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	g, err := New(Options{URL: u, CredentialsFile: file, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if _, _, _, err := g.Manifest(t.Context(), "modules/m", string(digest.FromString("another"))); fault.KindOf(err) != fault.Refuse || strings.Contains(err.Error(), password) {
		t.Errorf("took another manifest: %v", err)
	}
	if a, err := g.Access(t.Context(), "modules/m"); fault.KindOf(err) != fault.Refuse || strings.Contains(fmt.Sprint(a, err), password) {
		t.Errorf("gave the password to a node: %v, %v", a, err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{URL: u, CredentialsFile: file, Now: time.Now}); fault.HintOf(err) == "" {
		t.Errorf("took a file that everybody may read: %v", err)
	}
}
