package health

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/health/guard"
	"github.com/powernode/powernode-agent/internal/health/systemd"
	"github.com/powernode/powernode-agent/internal/store"
	"github.com/powernode/powernode-agent/internal/trial"
)

// node is a node that has booted.
type node struct {
	t        *testing.T
	config   Config
	mu       sync.Mutex
	seen     Seen
	restarts int
	log      bytes.Buffer
}

// newNode returns a node with that many generations, the first good of which are good; it runs the last.
func newNode(t *testing.T, generations, good int) *node {
	n := &node{t: t, seen: running()}
	n.config = Config{
		StateDir: t.TempDir(), RunDir: t.TempDir(), Every: 2 * time.Second,
		Settings: Settings{Trial: true, Attempt: 1, Attempts: 3, PlatformReached: true},
		System: func(context.Context) (systemd.System, error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			switch {
			case n.seen.None:
				return systemd.System{}, systemd.ErrNone
			case n.seen.Silent != "":
				return systemd.System{}, errors.New(n.seen.Silent)
			}
			return n.seen.System, nil
		},
		Restart: func(context.Context) error { n.restarts++; return nil },
		Uptime:  func() time.Duration { return 0 },
		Log:     slog.New(slog.NewTextHandler(&n.log, nil)),
	}
	n.store(func(s *store.Store) error {
		image := []byte("root")
		for i := 1; i <= generations; i++ {
			number, err := s.PutGeneration(store.Generation{RootDigest: fsverity.SumBytes(image)}, bytes.NewReader(image))
			if err == nil && i <= good {
				err = s.Pass(number, time.Now(), nil)
			}
			if err != nil {
				return err
			}
			n.config.Generation = number
		}
		if good == generations {
			n.config.Settings = Settings{}
			return nil
		}
		if err := s.Stage(n.config.Generation); err != nil {
			return err
		}
		in, err := trial.Read(s)
		if err != nil {
			return err
		}
		return s.PutTrial(trial.Order(in)[0].Begin(time.Now(), "boot"))
	})
	return n
}

func (n *node) store(do func(*store.Store) error) {
	n.t.Helper()
	s, err := store.Open(n.config.StateDir, store.Options{})
	if err == nil {
		err = errors.Join(do(s), s.Close())
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) see(s Seen) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seen = s
}

// run runs the gate for that long, on a clock of its own.
func (n *node) run(d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	New(n.config).Run(ctx, func() bool { n.mu.Lock(); defer n.mu.Unlock(); return n.seen.Platform }, func(time.Duration) {})
}

func (n *node) said() (words []string) {
	for _, word := range []string{guard.Good, guard.Stays} {
		if _, err := os.Stat(filepath.Join(n.config.RunDir, guard.File(word, n.config.Generation))); err == nil {
			words = append(words, word)
		}
	}
	return words
}

// want checks what is current, what was said to the guard, and how often the machine was restarted.
func (n *node) want(current uint64, words string, restarts int) {
	n.t.Helper()
	n.store(func(s *store.Store) error {
		got, err := s.Pointer(store.Current)
		if got != current {
			n.t.Errorf("current is %d, want %d", got, current)
		}
		return err
	})
	if got := strings.Join(n.said(), " "); got != words {
		n.t.Errorf("said %q, want %q", got, words)
	}
	if n.restarts != restarts {
		n.t.Errorf("%d restarts, want %d", n.restarts, restarts)
	}
	if n.t.Failed() {
		n.t.Log(n.log.String())
	}
}

// again is what the next boot does: it counts the next attempt.
func (n *node) again() {
	n.t.Helper()
	n.store(func(s *store.Store) error {
		in, err := trial.Read(s)
		if err != nil {
			return err
		}
		c := trial.Order(in)[0]
		if !c.IsTrial || c.Generation != n.config.Generation {
			n.t.Errorf("the next boot is %+v", c)
		}
		n.config.Attempt = c.Attempt
		return s.PutTrial(c.Begin(time.Now(), "another"))
	})
}

func (n *node) trial() (t store.Trial) {
	n.store(func(s *store.Store) (err error) { t, err = s.Trial(n.config.Generation); return err })
	return t
}

func TestGate(t *testing.T) {
	bad := running(failedUnit("nginx.service"))
	t.Run("good", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newNode(t, 2, 1)
			n.run(10 * time.Minute)
			n.want(2, "good", 0)
			r, err := ReadReport(n.config.RunDir)
			if err != nil || r.Outcome != OK || r.Generation != 2 || n.trial().Good.IsZero() {
				t.Errorf("%+v, %v, %+v", r, err, n.trial())
			}
		})
	})
	t.Run("bad", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newNode(t, 2, 1)
			n.see(bad)
			for range 2 {
				n.run(10 * time.Minute)
				if r := n.trial(); r.Exhausted() || !strings.Contains(r.Ended, "nginx.service") || r.Failed != "" {
					t.Errorf("a unit that failed in one boot: %+v", r)
				}
				n.again()
			}
			n.run(10 * time.Minute)
			n.want(1, "", 3)
			if r := n.trial(); !strings.Contains(r.Failed, "nginx.service") || r.FailedAt.IsZero() || r.Attempts != 3 || !r.Exhausted() {
				t.Errorf("%+v", r)
			}
		})
	})
	t.Run("bad when its time is over", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newNode(t, 2, 1)
			n.see(withoutPlatform(running()))
			n.run(10 * time.Minute)
			n.want(1, "", 1)
			if r := n.trial(); r.Attempts != 1 || !r.Exhausted() {
				t.Errorf("%+v", r)
			}
		})
	})
	t.Run("bad once, then good", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newNode(t, 2, 1)
			n.see(bad)
			n.run(10 * time.Minute)
			n.again()
			n.see(running())
			n.run(10 * time.Minute)
			n.want(2, "good", 1)
			if r := n.trial(); r.Ended != "" || r.Failed != "" {
				t.Errorf("%+v", r)
			}
		})
	})
	t.Run("bad, and the disk is gone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newNode(t, 2, 1)
			n.see(running(failedUnit("nginx.service")))
			system := n.config.System
			n.config.System = func(ctx context.Context) (systemd.System, error) {
				if err := os.WriteFile(filepath.Join(n.config.StateDir, "store.json"), []byte(`{"format": 99}`), 0o600); err != nil {
					t.Error(err)
				}
				return system(ctx)
			}
			n.run(10 * time.Minute)
			if n.restarts != 1 || !strings.Contains(n.log.String(), "the verdict can't be recorded") {
				t.Errorf("%d restarts\n%s", n.restarts, n.log.String())
			}
		})
	})
	t.Run("bad, and the store can't be read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newNode(t, 2, 1)
			n.see(bad)
			if err := os.WriteFile(filepath.Join(n.config.StateDir, "store.json"), []byte(`{"format": 99}`), 0o600); err != nil {
				t.Fatal(err)
			}
			n.run(10 * time.Minute)
			if n.restarts != 0 || strings.Join(n.said(), " ") != "good" {
				t.Errorf("%d restarts, said %q\n%s", n.restarts, n.said(), n.log.String())
			}
		})
	})
	t.Run("the first one is bad, and becomes good", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newNode(t, 1, 0)
			n.see(withoutPlatform(running()))
			n.run(10 * time.Minute)
			n.want(0, "failed", 0)
			if r := n.trial(); r.Exhausted() {
				t.Errorf("there is nothing else to run: %+v", r)
			}
			if lines := strings.Count(n.log.String(), "nothing to go back to"); lines != 1 {
				t.Errorf("said %d times\n%s", lines, n.log.String())
			}
			n.see(running())
			n.run(10 * time.Minute)
			n.want(1, "good failed", 0)
		})
	})
	t.Run("the first one with a failed unit", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newNode(t, 1, 0)
			n.see(bad)
			n.run(10 * time.Minute)
			n.want(1, "good", 0)
			if units := n.trial().FailedUnits; len(units) != 1 || units[0] != "nginx.service" {
				t.Errorf("failed units %q", units)
			}
		})
	})
	t.Run("known to be good", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newNode(t, 2, 2)
			n.see(bad)
			n.run(10 * time.Minute)
			n.want(2, "good", 0)
		})
	})
	t.Run("the current pointer is damaged", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newNode(t, 2, 2)
			if err := os.WriteFile(filepath.Join(n.config.StateDir, "generations", "current"), []byte("rub"), 0o600); err != nil {
				t.Fatal(err)
			}
			n.config.Generation = 1
			n.run(10 * time.Minute)
			n.want(1, "good", 0)
		})
	})
	t.Run("time counts from the hand-over", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newNode(t, 2, 1)
			n.see(inState("starting", running()))
			n.config.HandedOverSeconds = 100
			n.config.Uptime = func() time.Duration { return 200 * time.Second }
			begun := time.Now()
			n.run(10 * time.Minute)
			n.want(1, "", 1)
			if took := time.Since(begun); took != DefaultTimeout-100*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	})
	t.Run("a restart that fails is tried again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newNode(t, 2, 1)
			n.see(bad)
			n.config.Restart = func(context.Context) error {
				if n.restarts++; n.restarts < 3 {
					return errors.New("not now")
				}
				return nil
			}
			n.run(10 * time.Minute)
			n.want(1, "", 3)
		})
	})
}

// TestShutDownBeforeAVerdict: an operator who restarts a machine isn't a reason against what it runs, for so many
// times; a service that is restarted, and a shutdown while something is wrong, change nothing.
func TestShutDownBeforeAVerdict(t *testing.T) {
	for _, c := range []struct {
		name       string
		seen, then Seen
		times      int
		forgiven   int
		exhausted  bool
	}{
		{"restarted by somebody", inState("starting", running()), inState("stopping", running()), 3, 3, false},
		{"restarted for ever", inState("starting", running()), inState("stopping", running()), 6, 3, true},
		{"the service alone", inState("starting", running()), inState("starting", running()), 3, 0, true},
		{"systemd is gone", inState("starting", running()), Seen{Silent: "gone"}, 3, 0, true},
		{"while something is wrong", inState("starting", running(failedUnit("a.service"))), inState("stopping", running(failedUnit("a.service"))), 3, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, 2, 1)
				for i := range c.times {
					if i > 0 {
						n.again()
					}
					n.see(c.seen)
					go func() {
						time.Sleep(5 * time.Second)
						n.see(c.then)
					}()
					n.run(5*time.Second + time.Millisecond)
				}
				r := n.trial()
				if r.Forgiven != c.forgiven || r.Exhausted() != c.exhausted || r.Attempts != c.times || n.restarts != 0 {
					t.Errorf("%+v, %d restarts\n%s", r, n.restarts, n.log.String())
				}
			})
		})
	}
}

func TestReport(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadReport(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if err := WriteReport(dir, Report{Generation: 3, Verdict: Verdict{Outcome: Bad, Reasons: []string{"a", "b"}}}); err != nil {
		t.Fatal(err)
	}
	if r, err := ReadReport(dir); err != nil || r.Generation != 3 || r.Reason() != "a; b" {
		t.Errorf("%+v, %v", r, err)
	}
	if err := os.WriteFile(filepath.Join(dir, ReportName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadReport(dir); err == nil {
		t.Error("a report that is cut short")
	}
}

// TestTheEndOfATrialIsMadeUpFor where a crash came between the pointer and the trial's own record.
func TestTheEndOfATrialIsMadeUpFor(t *testing.T) {
	n := newNode(t, 2, 1)
	n.store(func(s *store.Store) error { return s.Promote(2) })
	n.config.Settings = Settings{}
	n.run(time.Second)
	n.want(2, guard.Good, 0)
	n.store(func(s *store.Store) error {
		got, err := s.Trial(2)
		if got.Good.IsZero() || got.Limit != 0 || got.Attempts != 1 {
			t.Errorf("%+v", got)
		}
		return err
	})
}

// TestWentLive: what went live isn't found good without a boot of its own, and is current no more once it is given up.
func TestWentLive(t *testing.T) {
	n := newNode(t, 2, 1)
	n.config.Settings = Settings{}
	live := func(s *store.Store) error {
		return errors.Join(s.PutLive(store.Live{Generation: 2, From: 1, At: time.Now()}), s.Promote(2))
	}
	n.store(live)
	n.run(time.Second)
	n.want(2, guard.Good, 0)
	if got := n.trial(); !got.Good.IsZero() {
		t.Errorf("it is good without a boot: %+v", got)
	}
	// The next boots with it fail, and this one is of what ran before.
	n.store(func(s *store.Store) error {
		got, err := s.Trial(2)
		got.Attempts = got.Limit
		return errors.Join(err, s.PutTrial(got))
	})
	n.config.Generation = 1
	n.run(time.Second)
	n.want(1, guard.Good, 0)
	n.store(func(s *store.Store) error {
		if got, err := s.Pointer(store.Previous); got == 2 || err != nil {
			t.Errorf("the way back is %d, %v", got, err)
		}
		return nil
	})
}

// TestFallbackIsThere: a generation whose modules are gone is nothing to go back to.
func TestFallbackIsThere(t *testing.T) {
	n := newNode(t, 3, 2)
	image := []byte("module")
	n.store(func(s *store.Store) error {
		in, err := trial.Read(s)
		if got := fallback(s, in, 3); got != 2 {
			t.Errorf("with all of it: %d", got)
		}
		in.Generations[1].Modules = []store.GenerationModule{{Name: "base", ManifestDigest: "sha256:" + strings.Repeat("0", 64), Seal: fsverity.SumBytes(image)}}
		if got := fallback(s, in, 3); got != 1 {
			t.Errorf("without the second's module: %d", got)
		}
		in.Generations[0].Modules = in.Generations[1].Modules
		if got := fallback(s, in, 3); got != 0 {
			t.Errorf("without any: %d", got)
		}
		return err
	})
}
