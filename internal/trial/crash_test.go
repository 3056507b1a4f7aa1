package trial

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/durable/durabletest"
	"github.com/powernode/powernode-agent/internal/fsverity"
	"github.com/powernode/powernode-agent/internal/store"
)

// The node of the crash tests has run generation 1 and 2, which is current.
func setup(t testing.TB, dir string) {
	t.Helper()
	s, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for n := uint64(1); n <= 2; n++ {
		if _, err := compose(s); err != nil {
			t.Fatal(err)
		}
		if err := s.Pass(n, once, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func compose(s *store.Store) (uint64, error) {
	image := []byte("root")
	return s.PutGeneration(store.Generation{RootDigest: fsverity.SumBytes(image)}, bytes.NewReader(image))
}

// update is what a node does with a new assignment: compose, stage, and in the next boots begin an
// attempt and judge it, till one is passed.
func update(dir string, hook durable.Hook) (err error) {
	s, err := store.Open(dir, store.Options{Hook: hook})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	bad, err := compose(s)
	if err == nil {
		err = s.Stage(bad)
	}
	if err == nil {
		err = boot(s, func(t store.Trial) error {
			t.Failed, t.FailedAt = "it is bad", once
			return s.PutTrial(t)
		})
	}
	if err != nil {
		return err
	}
	better, err := compose(s)
	if err == nil {
		err = s.Stage(better)
	}
	if err == nil {
		err = boot(s, func(t store.Trial) error { return s.Pass(t.Generation, once, nil) })
	}
	if err == nil {
		err = s.RemoveGeneration(bad)
	}
	return err
}

func boot(s *store.Store, judge func(store.Trial) error) error {
	in, err := Read(s)
	if err != nil {
		return err
	}
	order := Order(in)
	if len(order) == 0 || !order[0].IsTrial {
		return fmt.Errorf("nothing to try: %+v", order)
	}
	t := order[0].Begin(once, "boot")
	if err := s.PutTrial(t); err != nil {
		return err
	}
	return judge(t)
}

// check: whatever happened, the node knows what it knew, boots, and gets back to what is good.
func check(t testing.TB, dir, op string, _ error) {
	s, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	in, err := Read(s)
	if err != nil {
		t.Errorf("after a fault at %s: %v", op, err)
	}
	if in.Current != 2 && in.Current != 4 || op == "" && in.Current != 4 {
		t.Errorf("current is %d", in.Current)
	}
	if in.Current == 4 && in.Previous != 2 {
		t.Errorf("previous is %d, and current is 4", in.Previous)
	}
	for _, r := range in.Trials {
		if !r.Good.IsZero() && r.Generation == 3 {
			t.Errorf("a bad generation is good: %+v", r)
		}
	}
	// Boots that all die before a verdict.
	tried := make(map[uint64]int)
	for {
		in, err := Read(s)
		if err != nil {
			t.Fatal(err)
		}
		order := Order(in)
		if len(order) == 0 {
			t.Fatal("nothing is left to boot")
		}
		if !order[0].IsTrial {
			if n := order[0].Generation; n != in.Current {
				t.Errorf("it boots %d, and %d was good", n, in.Current)
			}
			break
		}
		next := order[0].Begin(time.Now(), "")
		if tried[next.Generation]++; tried[next.Generation] > DefaultLimit {
			t.Fatalf("generation %d is tried for ever", next.Generation)
		}
		if err := s.PutTrial(next); err != nil {
			t.Fatal(err)
		}
	}
	// The same work again ends well.
	if op != "" && in.Staged == 0 && in.Current == 2 {
		if n, err := compose(s); err != nil || s.Stage(n) != nil || s.Pass(n, once, nil) != nil {
			t.Errorf("again: %v", err)
		}
	}
}

var updateScenario = durabletest.Scenario{Setup: setup, Run: update, Check: check}

func TestFaults(t *testing.T) {
	t.Run("ENOSPC", func(t *testing.T) { updateScenario.FailEach(t, unix.ENOSPC) })
	t.Run("EIO", func(t *testing.T) { updateScenario.FailEach(t, unix.EIO) })
	t.Run("kill", updateScenario.KillEach)
	t.Run("power cut", updateScenario.PowerCutEach)
}

// TestDamage: each file of the generations cut to nothing or to half, as a bad disk does it. The node boots one
// of the generations that were good, and never one that was found bad.
func TestDamage(t *testing.T) {
	for _, file := range []string{"current", "previous", "staged", "1.json", "2.json", "3.json", "1.trial", "2.trial", "3.trial"} {
		for _, keep := range []int{0, 1, 2} {
			t.Run(fmt.Sprint(file, " cut by ", keep), func(t *testing.T) {
				dir := t.TempDir()
				setup(t, dir)
				s, err := store.Open(dir, store.Options{})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				n, err := compose(s)
				if err != nil || s.Stage(n) != nil || s.PutTrial(store.Trial{Generation: n, Attempts: 1, Limit: 3, Failed: "it is bad"}) != nil {
					t.Fatal(err)
				}
				name := filepath.Join(dir, "generations", file)
				data, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, data[:len(data)*keep/3], 0o600); err != nil {
					t.Fatal(err)
				}
				in, err := Read(s)
				if err == nil {
					t.Error("the damage isn't reported")
				}
				order := Order(in)
				if len(order) == 0 || order[0].IsTrial || order[0].Generation == n {
					t.Errorf("%+v", order)
				}
			})
		}
	}
}
