package agentcli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/enroll"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// enrolling is a machine beside a platform.
type enrolling struct {
	t        *testing.T
	platform *platformtest.Platform
	state    string
	ca       string
	machine  string // cli.App's Machine
}

func newEnrolling(t *testing.T) *enrolling {
	t.Helper()
	e := &enrolling{t: t, platform: platformtest.Start(t), state: filepath.Join(t.TempDir(), "state"), ca: filepath.Join(t.TempDir(), "ca.pem")}
	e.put(e.ca, e.platform.Config.CAPEM)
	if _, err := e.platform.Operator.CreateNode(t.Context(), operatorapi.NodeCreate{Name: "web-1", Architecture: "amd64"}); err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *enrolling) put(path, text string) {
	e.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		e.t.Fatal(err)
	}
}

func (e *enrolling) token() string {
	e.t.Helper()
	token, err := e.platform.Operator.CreateToken(e.t.Context(), "web-1", operatorapi.TokenCreate{})
	if err != nil {
		e.t.Fatal(err)
	}
	return token.Token
}

// run runs the agent, and returns its exit code and all that it said.
func (e *enrolling) run(stdin string, args ...string) (int, string) {
	e.t.Helper()
	var out bytes.Buffer
	app := &cli.App{In: strings.NewReader(stdin), Out: &out, Err: &out, Getenv: os.Getenv, Format: cli.Table, Machine: e.machine}
	code := app.Run(e.t.Context(), New(app), append(args, "--state", e.state))
	return code, out.String()
}

// named are the flags that name the platform.
func (e *enrolling) named(more ...string) []string {
	return append([]string{"enroll", "--tries", "1", "--platform-url", e.platform.URL, "--ca-file", e.ca}, more...)
}

// TestTokens come by four ways, and show nowhere.
func TestTokens(t *testing.T) {
	for _, way := range []string{"file", "standard input", "credential", "command line"} {
		t.Run(way, func(t *testing.T) {
			e := newEnrolling(t)
			token := e.token()
			file := filepath.Join(t.TempDir(), tokenCredential)
			e.put(file, token+"\n")
			args, stdin := e.named(), ""
			switch way {
			case "file":
				args = append(args, "--token-file", file)
			case "standard input":
				args, stdin = append(args, "--token-file", "-"), token+"\n"
			case "credential":
				t.Setenv("CREDENTIALS_DIRECTORY", filepath.Dir(file))
			case "command line":
				args = append(args, "--token", token)
			}
			code, out := e.run(stdin, args...)
			if code != 0 || !strings.Contains(out, "credentials were:   none") {
				t.Fatalf("%d: %s", code, out)
			}
			if strings.Contains(out, token) || strings.Contains(out, "warning:") != (way == "command line") {
				t.Errorf("it says %s", out)
			}
			// A node that serves is left as it is, and a used token of no use elsewhere.
			if code, out := e.run("", e.named()...); code != 0 || !strings.Contains(out, "credentials were:   valid") {
				t.Errorf("again: %d: %s", code, out)
			}
			e.state = filepath.Join(t.TempDir(), "other")
			if code, out := e.run(token, e.named("--token-file", "-")...); code != cli.ExitPlatform || strings.Contains(out, token) || !strings.Contains(out, "powernode token create") {
				t.Errorf("a used token: %d: %s", code, out)
			}
		})
	}
}

// TestEnrollSettings keeps what the flags say, and changes it without a new certificate.
func TestEnrollSettings(t *testing.T) {
	e := newEnrolling(t)
	read := func() credentialsDoc {
		t.Helper()
		doc, err := readCredentials(e.state)
		if err != nil {
			t.Fatal(err)
		}
		return *doc
	}
	if code, out := e.run(e.token(), e.named("--token-file", "-", "--clock", "local")...); code != 0 {
		t.Fatalf("%d: %s", code, out)
	}
	first := read()
	if first.Clock != "local" || first.Key != "file" || first.Proxy != "" || first.RotateAt.IsZero() {
		t.Errorf("%+v", first)
	}
	if code, out := e.run("", "enroll", "--clock", "platform", "--proxy", "http://u:hunter2@127.0.0.1:9"); code != 0 || strings.Contains(out, "hunter2") {
		t.Errorf("%d: %s", code, out)
	}
	doc := read()
	if doc.Clock != "platform" || doc.Proxy != "http://u:xxxxx@127.0.0.1:9" || doc.Serial != first.Serial {
		t.Errorf("%+v", doc)
	}
	if code, out := e.run("", "introspect"); code != 0 || strings.Contains(out, "hunter2") || !strings.Contains(out, "to be replaced at") {
		t.Errorf("%d: %s", code, out)
	}
	if code, out := e.run("", "enroll", "--proxy", "none"); code != 0 || read().Proxy != "" {
		t.Errorf("%d: %s", code, out)
	}
	code, out := e.run("", "enroll", "--output", "json")
	var answer enrollDoc
	if err := json.Unmarshal([]byte(out), &struct {
		*enrollDoc
		Situation string `json:"situation"`
	}{enrollDoc: &answer}); err != nil || code != 0 || answer.Serial != first.Serial || answer.Key != "file" {
		t.Errorf("%d: %s (%v)", code, out, err)
	}
}

// TestEnrollAgain gives a token to a node that knows its platform.
func TestEnrollAgain(t *testing.T) {
	e := newEnrolling(t)
	if code, out := e.run(e.token(), "enroll", "--tries", "1", "--token-file", "-"); code != 1 || !strings.Contains(out, "name the platform") {
		t.Errorf("a token alone: %d: %s", code, out)
	}
	if code, out := e.run(e.token(), e.named("--token-file", "-")...); code != 0 {
		t.Fatalf("%d: %s", code, out)
	}
	first, err := readCredentials(e.state)
	if err != nil {
		t.Fatal(err)
	}
	// As the service notes it when the platform says so.
	path := filepath.Join(boot.PKIDir(e.state), "credentials.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	e.put(path, strings.Replace(string(text), "{", `{"said":{"code":"CERTIFICATE_REVOKED","at":"2026-11-23T12:00:00Z"},`, 1))
	if code, out := e.run("", "enroll", "--tries", "1", "--identity-file", "/dev/null"); code == 0 || !strings.Contains(out, "revoked") {
		t.Errorf("without a token: %d: %s", code, out)
	}
	code, out := e.run(e.token(), "enroll", "--tries", "1", "--token-file", "-")
	if code != 0 || !strings.Contains(out, "credentials were:   revoked") {
		t.Fatalf("%d: %s", code, out)
	}
	if again, err := readCredentials(e.state); err != nil || again.Serial == first.Serial || again.InstanceID != first.InstanceID {
		t.Errorf("%+v, %v", again, err)
	}
}

func TestEnrollRefusesFlags(t *testing.T) {
	e := &enrolling{t: t, state: t.TempDir()}
	for _, args := range [][]string{
		{"--clock", "sundial"},
		{"--key", "usb"},
		{"--proxy", "https://p:1"},
		{"--proxy", "http://u:hunter2@p"},
		{"--token", "x", "--token-file", "y"},
		{"--renew", "--claim"},
		{"--platform-url", "https://p.example"},
		{"--platform-url", "https://127.0.0.1:9", "--ca-sha256", strings.Repeat("0", 64), "--instance-id", "../../etc"},
	} {
		if code, out := e.run("", append([]string{"enroll"}, args...)...); code != 1 || strings.Contains(out, "hunter2") {
			t.Errorf("%v: %d: %s", args, code, out)
		}
	}
}

// TestEnrollByTokenAlone gives a token to a machine that knows its platform by its kernel command line, and the one that was there counts no more.
func TestEnrollByTokenAlone(t *testing.T) {
	for _, old := range []string{"", " powernode.bootstrap_token=used-long-ago-0123456789"} {
		e := newEnrolling(t)
		e.machine = t.TempDir()
		if err := os.Mkdir(filepath.Join(e.machine, "proc"), 0o700); err != nil {
			t.Fatal(err)
		}
		e.put(filepath.Join(e.machine, "proc", "cmdline"), "quiet powernode.identity=cmdline powernode.platform_url="+e.platform.URL+" powernode.ca_file="+e.ca+old+"\n")
		code, out := e.run(e.token(), "enroll", "--tries", "1", "--token-file", "-")
		if code != 0 || !strings.Contains(out, "credentials were:   none") {
			t.Errorf("%q: %d: %s", old, code, out)
		}
	}
}

// TestEnrollByFileAndToken gives a token beside an identity.cfg, which says where. The file's own token, used long ago, doesn't count then.
func TestEnrollByFileAndToken(t *testing.T) {
	e := newEnrolling(t)
	cfg := filepath.Join(t.TempDir(), "identity.cfg")
	for _, old := range []string{"", "KEY=used-long-ago-0123456789\n", "KEY=used-long-ago-0123456789\nID=5ce38c87-d72e-4d86-ab38-b908377135e8\n"} {
		e.state = filepath.Join(t.TempDir(), "state")
		e.put(cfg, "SERVER="+e.platform.URL+"\nCA_PEM_FILE="+e.ca+"\n"+old)
		if code, out := e.run(e.token(), "enroll", "--tries", "1", "--identity-file", cfg, "--token-file", "-"); code != 0 {
			t.Errorf("%q: %d: %s", old, code, out)
		}
	}
	// An instance that is named without a token says which this machine is to be.
	e.state = filepath.Join(t.TempDir(), "state")
	e.put(cfg, "SERVER="+e.platform.URL+"\nCA_PEM_FILE="+e.ca+"\nID=5ce38c87-d72e-4d86-ab38-b908377135e8\n")
	if code, out := e.run(e.token(), "enroll", "--tries", "1", "--identity-file", cfg, "--token-file", "-"); code != cli.ExitPlatform {
		t.Errorf("another's token: %d: %s", code, out)
	}
}

// TestRenewNow replaces a certificate that serves.
func TestRenewNow(t *testing.T) {
	e := newEnrolling(t)
	if code, out := e.run(e.token(), e.named("--token-file", "-")...); code != 0 {
		t.Fatalf("%d: %s", code, out)
	}
	first, err := readCredentials(e.state)
	if err != nil {
		t.Fatal(err)
	}
	if code, out := e.run("", "enroll", "--tries", "1", "--renew"); code != 0 || !strings.Contains(out, "credentials were:   valid") || strings.Contains(out, first.Serial) {
		t.Errorf("%d: %s", code, out)
	}
	second, err := readCredentials(e.state)
	if err != nil || second.Serial == first.Serial || !second.Unused || second.Situation != enroll.Valid {
		t.Errorf("%+v, %v", second, err)
	}
	// A token for the case that the platform doesn't know the certificate isn't needed, nor used up.
	token := e.token()
	for range 2 {
		if code, out := e.run(token, "enroll", "--tries", "1", "--renew", "--token-file", "-"); code != 0 {
			t.Errorf("%d: %s", code, out)
		}
	}
	if second, err = readCredentials(e.state); err != nil {
		t.Fatal(err)
	}
	e.platform.Stop()
	if code, out := e.run("", "enroll", "--tries", "1", "--renew"); code != cli.ExitPlatform {
		t.Errorf("without a platform: %d: %s", code, out)
	}
	if third, err := readCredentials(e.state); err != nil || third.Serial != second.Serial {
		t.Errorf("%+v, %v", third, err)
	}
}
