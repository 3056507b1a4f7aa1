package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/operatorapi"
	"github.com/powernode/powernode-agent/internal/platform"
)

// TestFleet: a small fleet at a platform, with nothing that fails; the times are nobody's business here.
func TestFleet(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	file := filepath.Join(t.TempDir(), "credentials")
	if err := command(t.Context(), []string{"fill", "-data", dir, "-nodes", "20", "-credentials", file}, nil); err != nil {
		t.Fatal(err)
	}
	server, err := platform.Open(t.Context(), platform.Options{Dir: dir, Listen: "127.0.0.1:0", Version: "v0-test", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	var out strings.Builder
	err = command(t.Context(), []string{
		"run", "-credentials", file, "-platform", server.Addr().String() + "," + strconv.Itoa(os.Getpid()), "-operator", filepath.Join(dir, operatorapi.CredentialName),
		"-waiting", "10", "-every", "500ms", "-for", "500ms", "-step", "200ms", "-rates", "100", "-tasks", "50", "-bound", "1h",
	}, &out)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if err != nil || len(lines) != 5 || !strings.HasPrefix(lines[0], "20 nodes, 10 of which wait for tasks") || strings.Contains(out.String(), "failure") {
		t.Fatalf("%v\n%s", err, out.String())
	}
	// What failed has a line of its own. Its column counts heartbeats, too, that weren't begun while the one before was under way.
	for _, line := range lines[3:] {
		if fields := strings.Fields(line); len(fields) != 15 || fields[1] == "0" {
			t.Errorf("%q", line)
		}
	}
}

func TestDistribution(t *testing.T) {
	var r recorder
	for i := range 100 {
		r.add(time.Duration(100-i) * time.Millisecond)
	}
	d := r.take()
	for share, want := range map[float64]time.Duration{0: time.Millisecond, 0.5: 51 * time.Millisecond, 0.99: 100 * time.Millisecond, 1: 100 * time.Millisecond} {
		if got := d.at(share); got != want {
			t.Errorf("%v: %v, want %v", share, got, want)
		}
	}
	if got := r.take().at(0.5); got != 0 {
		t.Error(got)
	}
}

func TestUsage(t *testing.T) {
	u, err := usageOfServer(os.Getpid())
	if err != nil || u.resident < 1<<20 {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := usageOf(1 << 30); err == nil {
		t.Error("a process that isn't there has used something")
	}
}
