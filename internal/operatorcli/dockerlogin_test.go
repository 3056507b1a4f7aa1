package operatorcli

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/fault"
)

func TestDockerLogin(t *testing.T) {
	login := base64.StdEncoding.EncodeToString([]byte("ann:pass:word"))
	for name, c := range map[string]struct{ file, host, want, wrong string }{
		"by host":           {`{"auths": {"r.example": {"auth": "` + login + `"}}}`, "r.example", "ann pass:word", ""},
		"with a port":       {`{"auths": {"r.example:5000": {"auth": "` + login + `"}}}`, "r.example:5000", "ann pass:word", ""},
		"another port":      {`{"auths": {"r.example:5000": {"auth": "` + login + `"}}}`, "r.example", "", ""},
		"another host":      {`{"auths": {"evil.example": {"auth": "` + login + `"}}}`, "r.example", "", ""},
		"part of a host":    {`{"auths": {"r.example": {"auth": "` + login + `"}}}`, "r.example.evil.example", "", ""},
		"as a URL":          {`{"auths": {"https://R.example/v1/": {"auth": "` + login + `"}}}`, "r.example:443", "ann pass:word", ""},
		"in the clear":      {`{"auths": {"r.example": {"username": "ann", "password": "x"}}}`, "r.example", "ann x", ""},
		"nothing":           {`{}`, "r.example", "", ""},
		"a helper for all":  {`{"auths": {"r.example": {}}, "credsStore": "desktop"}`, "r.example", "", "credential helper"},
		"its helper":        {`{"credHelpers": {"r.example": "cloud"}}`, "r.example", "", "credential helper"},
		"another's helper":  {`{"credHelpers": {"s.example": "cloud"}}`, "r.example", "", ""},
		"no JSON":           {`secret`, "r.example", "", "isn't the JSON"},
		"no base64":         {`{"auths": {"r.example": {"auth": "secret!"}}}`, "r.example", "", "base64"},
		"no password":       {`{"auths": {"r.example": {"auth": "c2VjcmV0"}}}`, "r.example", "", "base64"},
		"more than anybody": {strings.Repeat(" ", maxDockerConfig+1), "r.example", "", "more than"},
	} {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, ".docker"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, ".docker", "config.json"), []byte(c.file), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, env := range []map[string]string{{"HOME": dir}, {"HOME": "/nowhere", "DOCKER_CONFIG": filepath.Join(dir, ".docker")}} {
			user, password, err := dockerLogin(func(key string) string { return env[key] }, c.host)
			if got := strings.TrimSpace(user + " " + password); got != c.want || (err != nil) != (c.wrong != "") {
				t.Errorf("%s: %q, %v", name, got, err)
			}
			if err != nil && (!strings.Contains(err.Error(), c.wrong) || strings.Contains(err.Error(), "secret") || fault.HintOf(err) == "") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for _, env := range []map[string]string{{}, {"HOME": t.TempDir()}} {
		if user, _, err := dockerLogin(func(key string) string { return env[key] }, "r.example"); user != "" || err != nil {
			t.Errorf("%s, %v", user, err)
		}
	}
}

func FuzzDockerConfig(f *testing.F) {
	f.Add([]byte(`{"auths": {"r.example": {"auth": "YW5uOng="}}}`), "r.example")
	f.Add([]byte(`{"credsStore": "x"}`), "r.example:5000")
	f.Fuzz(func(t *testing.T, data []byte, host string) {
		if user, _, err := parseDockerConfig(data, host); err != nil && user != "" {
			t.Error(user)
		}
	})
}
