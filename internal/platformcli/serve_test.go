package platformcli

import (
	"bytes"
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/operatorclient"
)

// output is a buffer that a program writes while the test reads.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func run(ctx context.Context, args ...string) (int, string, string) {
	var out, errs output
	app := &cli.App{In: strings.NewReader(""), Out: &out, Err: &errs, Format: cli.Table, Getenv: func(string) string { return "" }}
	code := app.Run(ctx, New(app), args)
	return code, out.String(), errs.String()
}

// TestServe starts the platform by its command line, speaks with it, and stops it.
func TestServe(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, errs output
	app := &cli.App{In: strings.NewReader(""), Out: &out, Err: &errs, Format: cli.Table, Getenv: func(string) string { return "" }}
	code := make(chan int, 1)
	go func() {
		code <- app.Run(ctx, New(app), []string{"serve", "--data", dir, "--listen", "127.0.0.1:0", "--tls-name", "platform.example", "--log-format", "json", "--log-level", "debug"})
	}()
	for !strings.Contains(errs.String(), `"msg":"serving"`) {
		select {
		case c := <-code:
			t.Fatalf("it ended with %d: %s", c, errs.String())
		case <-time.After(time.Millisecond):
		}
	}
	config, err := operatorclient.LoadConfig(filepath.Join(dir, operatorapi.CredentialName))
	if err != nil {
		t.Fatal(err)
	}
	tlsConfig, err := config.TLS()
	if err != nil {
		t.Fatal(err)
	}
	tlsConfig.ServerName = "platform.example"
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: tlsConfig, ForceAttemptHTTP2: true}}
	resp, err := client.Get(config.URL + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
		t.Errorf("%s %s", resp.Proto, resp.Status)
	}
	client.CloseIdleConnections()

	// A second one on the same directory is told who has it.
	if c, _, text := run(ctx, "serve", "--data", dir, "--listen", "127.0.0.1:0"); c == 0 || !strings.Contains(text, "is locked by process") {
		t.Errorf("%d %s", c, text)
	}
	cancel()
	if c := <-code; c != 0 {
		t.Errorf("exit code %d: %s", c, errs.String())
	}
	if strings.Contains(errs.String(), config.Token.Reveal()) {
		t.Error("the log holds the operator's token")
	}
}

func TestServeRefused(t *testing.T) {
	dir := t.TempDir()
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"serve", "--data", ""}, "name a directory with --data"},
		{[]string{"serve", "--data", dir, "--public-url", "http://x"}, "give it as https://host:port"},
		{[]string{"serve", "--data", dir, "--tls-name", "a b"}, "give a host name or an IP address"},
		{[]string{"serve", "--data", dir, "--trusted-proxy", "proxy.example"}, "give an address as 192.0.2.7"},
		{[]string{"serve", "--data", dir, "--trusted-proxy", "0.0.0.0/0"}, "list the proxies' own addresses"},
		{[]string{"serve", "--data", dir, "--client-cert-header", "X-Subject"}, "use X-SSL-Client-Cert or Client-Cert"},
		{[]string{"serve", "--data", dir, "--renew-expired", "soon"}, "use always, never, approval, or a number of days like 30d"},
		{[]string{"serve", "--data", dir, "--heartbeat-interval", "1s"}, "use 30s"},
		{[]string{"serve", "--data", dir, "--heartbeat-interval", "1h"}, "use 30s"},
		{[]string{"serve", "--data", dir, "--heartbeat-interval", "7500ms"}, "use 30s"},
		{[]string{"serve", "--data", dir, "--log-level", "loud"}, "use debug, info, warn or error"},
		{[]string{"serve", "--data", dir, "--log-format", "xml"}, "use text or json"},
		{[]string{"serve", "--data", filepath.Join(dir, "x"), "--listen", "nowhere"}, "choose another address"},
		{[]string{"serve", "--data", dir, "--database", "mysql://h/d"}, "write postgres://user@host:5432/database"},
		{[]string{"serve", "--data", dir, "--database", "postgres://u:secret@h/d"}, "name that with --database-password-file"},
		{[]string{"serve", "--data", dir, "--database", "postgres://u@h/d", "--database-password-file", dir + "/absent"}, "name a file with --database-password-file"},
		{[]string{"serve", "--data", dir, "--database", "postgres://u@h/d", "--shared-secret-file", dir}, "name a file with --shared-secret-file"},
		{[]string{"serve", "--data", dir, "--shared-secret-file", "/dev/null"}, "name a PostgreSQL with --database too"},
		{[]string{"serve", "--data", dir, "--registry", "http://registry.example"}, "use https"},
		{[]string{"serve", "--data", dir, "--registry", "https://registry.example", "--registry-dir", dir}, "leave out --registry-dir"},
		{[]string{"serve", "--data", dir, "--registry-credentials-file", "/dev/null"}, "name the registry with --registry too"},
		{[]string{"serve", "--data", dir, "--registry-ca", "/dev/null"}, "name the registry with --registry too"},
		{[]string{"serve", "--data", dir, "--registry", "https://registry.example", "--registry-ca", "/dev/null"}, "/dev/null holds no certificate"},
		{[]string{"serve", "--data", dir, "--registry", "https://registry.example", "--registry-ca", dir + "/absent"}, "name a file with --registry-ca"},
		{[]string{"serve", "--data", filepath.Join(dir, "y"), "--database", "postgres://u@/d?host=" + dir}, "check that PostgreSQL runs"},
		{[]string{"serve", "--data", "/proc/nothing/here"}, "open the data directory"},
		{[]string{"serve", "extra"}, "see powernode-platform serve --help"},
		{[]string{"nothing"}, "see powernode-platform --help"},
	} {
		code, out, errs := run(t.Context(), tc.args...)
		if code != 1 && code != 3 || out != "" || !strings.Contains(errs, tc.want) || strings.Count(errs, "\n") < 1 {
			t.Errorf("%v: %d, %q, %q; want %q", tc.args, code, out, errs, tc.want)
		}
	}
	if code, out, _ := run(t.Context(), "version", "--output", "json"); code != 0 || !strings.Contains(out, "protocol_version") {
		t.Errorf("%d %s", code, out)
	}
}
