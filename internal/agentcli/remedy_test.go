package agentcli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/powernode/powernode-agent/internal/cli"
)

// TestOutsideOfANode: what can't work there says in one line what to do, with the code of its kind, and
// leaves nothing behind.
func TestOutsideOfANode(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	identity := filepath.Join(dir, "none.cfg")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"status"}, "no such file or directory; run it on a node that has booted, or name the directory of record with --state"},
		{[]string{"verify", "nginx"}, "name the directory of record with --state"},
		{[]string{"service"}, "this node isn't enrolled; make a token"},
		{[]string{"service", "--log-format", "xml"}, `unknown log format "xml"; use auto, text or json`},
		{[]string{"enroll", "--identity-file", identity}, "this node isn't enrolled: find out who this node is"},
	} {
		var out, errs bytes.Buffer
		app := &cli.App{In: strings.NewReader(""), Out: &out, Err: &errs, Format: cli.Table, Getenv: func(string) string { return "" }}
		code := app.Run(context.Background(), New(app), append(c.args, "--state", state))
		if code != cli.ExitFailure || !strings.Contains(errs.String(), c.want) || strings.Count(errs.String(), "\n") != 1 || out.Len() > 0 {
			t.Errorf("%v: code %d\n%s%s\nwant %d and %q", c.args, code, &out, &errs, cli.ExitFailure, c.want)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%v: left behind: %v, %v", c.args, left, err)
		}
	}
}
