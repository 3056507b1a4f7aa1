package identity

import (
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/powernode/powernode-agent/internal/bootconfig"
	"github.com/powernode/powernode-agent/internal/nodehttp/pkitest"
)

const (
	uuid  = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
	token = "hXk2-Zz_9QpLm0aBcDeFgHiJkLmNoPqRsTuVwXyZ012"
)

// write puts content into a fresh file and returns its path.
func write(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCmdline(t *testing.T) {
	ca := pkitest.NewCA(t, "CA")
	caFile := write(t, "ca.pem", string(ca.PEM()))
	std := base64.StdEncoding.EncodeToString(ca.PEM())
	for _, c := range []struct {
		name, line string
		want       Found
		err        string
	}{
		{
			name: "all", line: "BOOT_IMAGE=/vmlinuz root=x powernode.boot=1 powernode.instance_uuid=" + strings.ToUpper(uuid) +
				" powernode.bootstrap_token=" + token + " powernode.platform_url=https://P.example:8443/ powernode.ca_pem=" + std + " quiet",
			want: Found{InstanceID: uuid, PlatformURL: "https://p.example:8443", CAPEM: ca.PEM()},
		},
		{name: "padding of base64 cut", line: "powernode.ca_pem=" + strings.TrimRight(std, "="), want: Found{CAPEM: ca.PEM()}},
		{name: "base64url", line: "powernode.ca_pem=" + base64.URLEncoding.EncodeToString(ca.PEM()), want: Found{CAPEM: ca.PEM()}},
		{name: "base64 of DER", line: "powernode.ca_pem=" + base64.StdEncoding.EncodeToString(ca.Cert.Raw), want: Found{CAPEM: ca.PEM()}},
		{name: "PEM in quotes", line: `powernode.ca_pem="` + string(ca.PEM()) + `"`, want: Found{CAPEM: ca.PEM()}},
		{name: "PEM with written line ends", line: `powernode.ca_pem="` + strings.ReplaceAll(string(ca.PEM()), "\n", `\n`) + `"`, want: Found{CAPEM: ca.PEM()}},
		{name: "CA file", line: "powernode.ca_file=" + caFile, want: Found{CAPEM: ca.PEM()}},
		{name: "dash and underscore, last wins", line: "powernode.platform-url=https://a powernode.platform_url=https://b", want: Found{PlatformURL: "https://b"}},
		{name: "single quotes", line: "powernode.platform_url='https://b'", want: Found{PlatformURL: "https://b"}},
		{name: "nothing of ours", line: "root=x powernode.boot=1 powernodeXinstance_uuid=" + uuid, err: "no identity among"},
		{name: "empty values", line: "powernode.instance_uuid= powernode.bootstrap_token=", err: "no identity among"},
		{name: "after --", line: "ro -- powernode.instance_uuid=" + uuid, err: "no identity among"},
		{name: "http", line: "powernode.platform_url=http://p.example", err: "powernode.platform_url: platform URL"},
		{name: "UUID", line: "powernode.instance_uuid=" + uuid[1:], err: "powernode.instance_uuid: "},
		{name: "zero UUID", line: "powernode.instance_uuid=00000000-0000-0000-0000-000000000000", err: "all zeros"},
		{name: "short token", line: "powernode.bootstrap_token=short", err: "16 to 512 characters, this has 5"},
		{name: "odd token", line: `powernode.bootstrap_token="` + token + ` x"`, err: "character 44 can't"},
		{name: "open quote", line: `powernode.platform_url="https://p.example quiet`, err: "isn't closed"},
		{name: "cut base64", line: "powernode.ca_pem=" + std[:len(std)/2], err: "powernode.ca_pem: "},
		{name: "no base64", line: "powernode.ca_pem=***", err: "neither PEM nor base64"},
		{name: "relative CA file", line: "powernode.ca_file=ca.pem", err: "isn't an absolute path"},
		{name: "missing CA file", line: "powernode.ca_file=/nonexistent/ca.pem", err: "powernode.ca_file: open /nonexistent/ca.pem"},
		{name: "CA directory", line: "powernode.ca_file=/proc/self/fd", err: "isn't a regular file"},
		{name: "huge", line: strings.Repeat("x", bootconfig.CmdlineMax+1), err: "longer than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := write(t, "cmdline", c.line)
			got, err := Cmdline{Path: path}.Find(t.Context())
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), token) {
					t.Errorf("got %v, want an error with %q and no token", err, c.err)
				}
				if notFound := strings.HasPrefix(c.err, "no identity"); errors.Is(err, ErrNotFound) != notFound {
					t.Errorf("%v: ErrNotFound is %v", err, !notFound)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(c.line, token) {
				if got.Token.Reveal() != token || len(got.Warnings) != 1 {
					t.Errorf("token %q, warnings %q", got.Token.Reveal(), got.Warnings)
				}
				got.Token, got.Warnings = c.want.Token, nil
			}
			c.want.Where = path
			if d := cmp.Diff(c.want, got, cmp.Comparer(func(a, b Found) bool {
				return a.InstanceID == b.InstanceID && a.PlatformURL == b.PlatformURL && string(a.CAPEM) == string(b.CAPEM) && a.Where == b.Where && a.Token.Equal(b.Token)
			})); d != "" {
				t.Error(d)
			}
		})
	}
	if _, err := (Cmdline{Path: "/nonexistent/cmdline"}).Find(t.Context()); !errors.Is(err, ErrNotFound) {
		t.Errorf("a missing file: %v", err)
	}
	// The machine's own must at least parse.
	if _, err := (Cmdline{}).Find(t.Context()); err != nil && !errors.Is(err, ErrNotFound) {
		t.Errorf("/proc/cmdline: %v", err)
	}
}

// TestTokenWithEquals is the case of tokens that other agents cut at their second "=".
func TestTokenWithEquals(t *testing.T) {
	tok := "c2VjcmV0LXNlY3JldC1zZWNyZXQ=="
	for _, line := range []string{"powernode.bootstrap_token=" + tok, `powernode.bootstrap_token="` + tok + `"`, "powernode.bootstrap_token='" + tok + "' x=y"} {
		found, err := Cmdline{Path: write(t, "cmdline", line)}.Find(t.Context())
		if err != nil || found.Token.Reveal() != tok {
			t.Errorf("%s: %q, %v", line, found.Token.Reveal(), err)
		}
	}
}

func FuzzParseCmdline(f *testing.F) {
	for _, s := range []string{`a=b "c d" e='f`, "powernode.bootstrap_token='x=y' -- z", `powernode.ca_pem="-----BEGIN`, "a='", `"`, "=="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		for _, p := range bootconfig.Split(line) {
			if !strings.Contains(line, p.Value) || strings.Contains(p.Name, "=") {
				t.Fatalf("%q gives name %q, value %q", line, p.Name, p.Value)
			}
		}
		if raw, err := ParseCmdline(line); err == nil && !raw.IsZero() {
			raw.CAFile = "" // a fuzzer has no business with files
			if found, err := raw.Check("fuzz", nil); err == nil {
				mustBeSound(t, found)
			}
		}
	})
}

// mustBeSound checks what every source promises of a Found.
func mustBeSound(t *testing.T, f Found) {
	t.Helper()
	if f.InstanceID != "" && (len(f.InstanceID) != 36 || strings.ToLower(f.InstanceID) != f.InstanceID) {
		t.Fatalf("instance %q", f.InstanceID)
	}
	if n := len(f.Token.Reveal()); n != 0 && (n < minToken || n > maxToken) {
		t.Fatalf("a token of %d characters", n)
	}
	if f.PlatformURL != "" && !strings.HasPrefix(f.PlatformURL, "https://") {
		t.Fatalf("platform %q", f.PlatformURL)
	}
}
