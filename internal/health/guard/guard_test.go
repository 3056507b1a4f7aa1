package guard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain is the agent for the tests of Start: it says how it was started, or watches, late.
func TestMain(m *testing.M) {
	if strings.HasPrefix(os.Args[0], "@") {
		if strings.HasSuffix(os.Args[3], "-slow") {
			time.Sleep(300 * time.Millisecond)
			path := os.Args[3]
			err := Run(context.Background(), Config{RunDir: path, After: time.Minute, Every: time.Millisecond, Ready: Starter()})
			if err == nil {
				err = os.WriteFile(path+"-moved/heard", nil, 0o600)
			}
			if err != nil {
				os.Exit(1)
			}
			os.Exit(0)
		}
		if strings.HasSuffix(os.Args[3], "-gone") {
			os.Exit(1)
		}
		wd, _ := os.Getwd()
		path := filepath.Join(os.Args[3], "started")
		if err := os.WriteFile(path+".new", fmt.Appendf(nil, "%q in %s", os.Args, wd), 0o600); err == nil {
			err = os.Rename(path+".new", path)
			if err != nil {
				os.Exit(1)
			}
		}
		_, _ = Starter().Write([]byte{'\n'})
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestRun(t *testing.T) {
	for _, c := range []struct {
		name, word string
		generation uint64
		reboots    int
	}{
		{"good", Good, 3, 0},
		{"stays up", Stays, 3, 0},
		{"nobody says anything", "", 3, 1},
		{"another file", "health.json", 3, 1},
		{"of another generation", Good, 2, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			reboots := 0
			var log bytes.Buffer
			config := Config{RunDir: dir, Generation: 3, After: 20 * time.Millisecond, Every: time.Millisecond, Log: &log, Reboot: func() error { reboots++; return nil }}
			if c.word != "" {
				// The time is never over before the word is said, and the word is said before it looks.
				if err := Say(dir, c.generation, c.word, "because"); err != nil {
					t.Fatal(err)
				}
			}
			if err := Run(t.Context(), config); err != nil {
				t.Fatal(err)
			}
			if reboots != c.reboots || strings.Contains(log.String(), "restarting") != (reboots > 0) {
				t.Errorf("%d reboots, %q", reboots, log.String())
			}
		})
	}
}

// ready is closed once the guard is.
type ready chan struct{}

// Write implements io.Writer.
func (ready) Write(b []byte) (int, error) { return len(b), nil }

// Close implements io.Closer.
func (r ready) Close() error {
	close(r)
	return nil
}

// TestWordWhileItWaits: also by way of a directory that was moved meanwhile, as /run is.
func TestWordWhileItWaits(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	done, watches := make(chan error, 1), make(ready)
	go func() {
		done <- Run(t.Context(), Config{RunDir: dir, After: time.Hour, Every: time.Millisecond, Log: io.Discard, Ready: watches, Reboot: func() error { return errors.New("rebooted") }})
	}()
	select {
	case <-watches:
	case err := <-done:
		t.Fatalf("it doesn't watch: %v", err)
	}
	if err := os.Rename(dir, dir+"-moved"); err != nil {
		t.Fatal(err)
	}
	if err := Say(dir+"-moved", 0, Good, ""); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(2 * time.Minute):
		t.Error("it didn't hear")
	}
}

func TestRunEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	config := Config{RunDir: t.TempDir(), After: time.Hour, Reboot: func() error { return errors.New("rebooted") }}
	if err := Run(ctx, config); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	config.RunDir += "/missing"
	if err := Run(t.Context(), config); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestStart(t *testing.T) {
	dir := t.TempDir()
	if err := Say(dir, 7, Good, "an earlier boot's"); err != nil {
		t.Fatal(err)
	}
	agent, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := Start(Spec{Agent: agent, RunDir: dir, Generation: 7, After: time.Hour})
	if err != nil || pid <= 0 {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, File(Good, 7))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the word of an earlier boot still counts: %v", err)
	}
	want := fmt.Sprintf("%q in /", []string{Name, "guard", "--run", dir, "--generation", "7", "--after", "1h0m0s"})
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		got, err := os.ReadFile(filepath.Join(dir, "started"))
		if err == nil {
			if string(got) != want {
				t.Errorf("started as %s, want %s", got, want)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("it never started")
		}
	}
}

// TestStartWaits until the guard has what it needs: a hand-over moves /run right after.
func TestStartWaits(t *testing.T) {
	agent, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "run-slow")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(Spec{Agent: agent, RunDir: dir, After: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir, dir+"-moved"); err != nil {
		t.Fatal(err)
	}
	if err := Say(dir+"-moved", 0, Good, ""); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(dir + "-moved/heard"); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the guard doesn't watch what was moved")
		}
	}
}

// TestStartOfNone: a guard that ends is no guard.
func TestStartOfNone(t *testing.T) {
	agent, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "run-gone")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if pid, err := Start(Spec{Agent: agent, RunDir: dir, After: time.Hour}); err == nil || pid <= 0 {
		t.Errorf("process %d, %v", pid, err)
	}
}
