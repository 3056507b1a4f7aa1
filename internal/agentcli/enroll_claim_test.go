package agentcli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/boot"
	"github.com/powernode/powernode-agent/internal/cli"
	"github.com/powernode/powernode-agent/internal/identity/claim"
	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform/platformtest"
)

// screen is a buffer that one writes and another reads.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestEnrollClaim has a machine claimed from the command line, over an interruption.
func TestEnrollClaim(t *testing.T) {
	if claim.Look("", "").MAC == "" {
		t.Skip("this machine has no network card to be known by")
	}
	p := platformtest.Start(t)
	ca, state := filepath.Join(t.TempDir(), "ca.pem"), t.TempDir()
	if err := os.WriteFile(ca, []byte(p.Config.CAPEM), 0o600); err != nil {
		t.Fatal(err)
	}
	var errs screen
	run := func(ctx context.Context) (int, string) {
		var out bytes.Buffer
		app := &cli.App{In: strings.NewReader(""), Out: &out, Err: &errs, Format: cli.JSON, Getenv: func(string) string { return "" }}
		return app.Run(ctx, New(app), []string{"enroll", "--claim", "--state", state, "--platform-url", p.URL, "--ca-file", ca}), out.String()
	}
	ctx, interrupt := context.WithCancel(t.Context())
	shown := make(chan string, 1)
	go func() {
		defer interrupt()
		for {
			if m := regexp.MustCompile(`powernode claim accept (\S{9}) --node NODE`).FindStringSubmatch(errs.String()); m != nil {
				shown <- m[1]
				return
			}
			select {
			case <-t.Context().Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	if code, out := run(ctx); code == 0 {
		t.Fatalf("it didn't wait: %s", out)
	}
	var claimed string
	select {
	case claimed = <-shown:
	default:
		t.Fatalf("it showed no code: %s", errs.String())
	}
	// Not before: it could be enrolled before it is interrupted.
	if _, err := p.Operator.AcceptClaim(t.Context(), claimed, operatorapi.ClaimAccept{Create: "web-1"}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there are credentials
		if code, out := run(t.Context()); code != 0 || !strings.Contains(out, `"key": "file"`) {
			t.Fatalf("exit code %d\n%s%s", code, out, errs.String())
		}
	}
	if _, err := os.Stat(filepath.Join(boot.ClaimDir(state), "claim.json")); err == nil {
		t.Error("the claim is still on the disk")
	}
	list, err := p.Operator.Claims(t.Context())
	if err != nil || list.Count != 1 || list.Claims[0].State != operatorapi.ClaimDone || strings.Contains(errs.String(), "\x1b") {
		t.Errorf("%+v, %v\n%s", list, err, errs.String())
	}
}
