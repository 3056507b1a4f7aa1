package platformcli

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/platform/postgrestest"
)

// TestServeOverPostgres starts two platforms over one PostgreSQL by their command lines. Neither the log nor the command line holds a
// secret.
func TestServeOverPostgres(t *testing.T) {
	dir := t.TempDir()
	u, err := url.Parse(postgrestest.Empty(t))
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(postgrestest.Guarded)
	// The database is another user's; this one may do what its owner may.
	postgrestest.Administer(t, "ALTER DATABASE "+strings.TrimPrefix(u.Path, "/")+" OWNER TO "+postgrestest.Guarded)
	shared := strings.Repeat("shared", 6)
	for name, text := range map[string]string{"password": postgrestest.Password + "\n", "shared": shared + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	serve := func(ctx context.Context, data string) (errs *output, code chan int) {
		errs, code = new(output), make(chan int, 1)
		app := &cli.App{In: strings.NewReader(""), Out: new(output), Err: errs, Format: cli.Table, Getenv: func(string) string { return "" }}
		go func() {
			code <- app.Run(ctx, New(app), []string{
				"serve", "--data", filepath.Join(dir, data), "--listen", "127.0.0.1:0", "--log-level", "debug", "--log-format", "json",
				"--database", u.String(), "--database-password-file", filepath.Join(dir, "password"),
				"--shared-secret-file", filepath.Join(dir, "shared"), "--registry-dir", filepath.Join(dir, "registry"),
			})
		}()
		for !strings.Contains(errs.String(), `"msg":"serving"`) {
			select {
			case c := <-code:
				t.Fatalf("it ended with %d: %s", c, errs.String())
			case <-time.After(time.Millisecond):
			}
		}
		return errs, code
	}
	ctx, cancel := context.WithCancel(t.Context())
	one, endOne := serve(ctx, "one")
	two, endTwo := serve(ctx, "two")
	cancel()
	if a, b := <-endOne, <-endTwo; a != 0 || b != 0 {
		t.Errorf("%d, %d: %s %s", a, b, one.String(), two.String())
	}
	for _, log := range []string{one.String(), two.String()} {
		if strings.Contains(log, postgrestest.Password) || strings.Contains(log, shared) {
			t.Error("the log holds a secret")
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "one", "platform.db")); !os.IsNotExist(err) {
		t.Errorf("a SQLite was made as well: %v", err)
	}
}
