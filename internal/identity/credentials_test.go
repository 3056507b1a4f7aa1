package identity

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
)

func TestCredentials(t *testing.T) {
	ca := pkitest.NewCA(t, "CA")
	all := map[string]string{
		"@system/powernode.instance_uuid": uuid + "\n", "@system/powernode.bootstrap_token": token, "@system/powernode.platform_url": "https://p.example",
		"@system/powernode.ca_pem": string(ca.PEM()), "@system/other": "x",
	}
	with := func(more ...string) map[string]string {
		out := map[string]string{}
		for k, v := range all {
			out[k] = v
		}
		for i := 0; i < len(more); i += 2 {
			out[more[i]] = more[i+1]
		}
		return out
	}
	for _, c := range []struct {
		name  string
		files map[string]string
		where string
		err   string
		none  bool
	}{
		{"the system's", all, "@system", "", false},
		{"the unit's own first", with("own/powernode.platform_url", "https://p.example", "@system/powernode.platform_url", "http://bad"), "own", "", false},
		{"none", map[string]string{"@system/login.motd": "x"}, "", "no credential powernode.*", true},
		{"no directories", nil, "", "no credential powernode.*", true},
		{"encrypted ones", map[string]string{"@encrypted/powernode.bootstrap_token": "k6iUCUh0RJCQyvL8k8q1UyAAAAA"}, "", "LoadCredentialEncrypted=", true},
		{"bad", with("own/powernode.clock", "sundial"), "", "own/powernode.clock: ", false},
		{"huge", with("own/powernode.bootstrap_token", strings.Repeat("a", 5000)), "", "own/powernode.bootstrap_token", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			run := t.TempDir()
			for name, content := range c.files {
				path := filepath.Join(run, name)
				if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o400)); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("CREDENTIALS_DIRECTORY", filepath.Join(run, "own"))
			found, err := Credentials{Run: run}.Find(t.Context())
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || errors.Is(err, ErrNotFound) != c.none {
					t.Errorf("%v, want %q", err, c.err)
				}
				return
			}
			if err != nil || found.InstanceID != uuid || found.Token.Reveal() != token || found.PlatformURL != "https://p.example" || string(found.CAPEM) != string(ca.PEM()) || found.Where != filepath.Join(run, c.where) {
				t.Errorf("%+v, %v", found, err)
			}
		})
	}
	// A link that leads out of the directory isn't followed.
	run := t.TempDir()
	out := write(t, "token", token)
	if err := errors.Join(os.Mkdir(filepath.Join(run, "own"), 0o700), os.Symlink(out, filepath.Join(run, "own/powernode.bootstrap_token"))); err != nil {
		t.Fatal(err)
	}
	if found, err := (Credentials{Own: filepath.Join(run, "own"), Run: run}).Find(t.Context()); err == nil {
		t.Errorf("followed the link: %+v", found)
	}
}
