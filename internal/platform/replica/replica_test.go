package replica

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/powernode/powernode-agent/internal/durable"
	"github.com/powernode/powernode-agent/internal/fault"
	"github.com/powernode/powernode-agent/internal/platform/db"
	"github.com/powernode/powernode-agent/internal/secret"
)

// records is the database of several platforms, in memory.
type records struct {
	mu  sync.Mutex
	has db.Authorities
	// away is the error of every call.
	away error
	told []chan struct{}
}

func (r *records) Authorities(context.Context) (db.Authorities, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.has, r.away
}

func (r *records) ChangeAuthorities(_ context.Context, change func(db.Authorities) (db.Authorities, error)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away != nil {
		return r.away
	}
	now, err := change(r.has)
	if err != nil || now.Version == r.has.Version {
		return err
	}
	r.has = now
	for _, ch := range r.told {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
	return nil
}

func (r *records) Watch(context.Context, string) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	ch := make(chan struct{}, 1)
	r.told = append(r.told, ch)
	return ch
}

var shared = secret.New(strings.Repeat("s", MinSecret))

func join(t *testing.T, r *records, text secret.Text) (*Replica, error) {
	t.Helper()
	dir, err := durable.MakeDir(filepath.Join(t.TempDir(), "ca"), 0o700, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return Join(t.Context(), Options{Records: r, Dir: dir, Secret: text, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
}

func joined(t *testing.T, r *records) *Replica {
	t.Helper()
	one, err := join(t, r, shared)
	if err != nil {
		t.Fatal(err)
	}
	return one
}

// TestNothingInTheClear: the database has no key that someone without the secret can read, and none that was changed opens.
func TestNothingInTheClear(t *testing.T) {
	r := &records{}
	one := joined(t, r)
	open, err := one.CA().Export()
	if err != nil || !bytes.Contains(open, []byte("PRIVATE KEY")) {
		t.Fatalf("%v", err)
	}
	if bytes.Contains(r.has.Sealed, []byte("PRIVATE")) || bytes.Contains(r.has.Sealed, []byte("BEGIN")) || len(r.has.Sealed) <= len(open) {
		t.Error("it isn't encrypted")
	}
	for name, change := range map[string]func(a *db.Authorities){
		"a bit":              func(a *db.Authorities) { a.Sealed[len(a.Sealed)/2] ^= 1 },
		"another version":    func(a *db.Authorities) { a.Version++ },
		"another's platform": func(a *db.Authorities) { a.Origin = "00000000" },
		"cut":                func(a *db.Authorities) { a.Sealed = a.Sealed[:10] },
	} {
		other := &records{has: r.has}
		other.has.Sealed = bytes.Clone(r.has.Sealed)
		change(&other.has)
		if _, err := join(t, other, shared); err == nil || fault.KindOf(err) != fault.Refuse {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTell: a change here is there, also one that couldn't be told at first; and of two at once the later one is undone.
func TestTell(t *testing.T) {
	r := &records{}
	one, two := joined(t, r), joined(t, r)
	ctx := t.Context()
	nothing := func(context.Context) error { return nil }
	same := func() bool { return one.CA().BundleSHA256() == two.CA().BundleSHA256() }
	if !same() {
		t.Fatal("they begin apart")
	}
	if _, err := one.CA().Prepare(); err != nil {
		t.Fatal(err)
	}
	r.away = errors.New("away")
	if err := one.Tell(ctx); !errors.Is(err, r.away) {
		t.Fatal(err)
	}
	if err := one.step(ctx, nothing); !errors.Is(err, r.away) {
		t.Fatal(err)
	}
	r.away = nil
	changed := 0
	for _, err := range []error{
		one.step(ctx, nothing),
		two.step(ctx, func(context.Context) error { changed++; return nil }),
		two.step(ctx, func(context.Context) error { changed++; return nil }),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if !same() || changed != 1 {
		t.Fatalf("told %d times", changed)
	}

	if _, err := one.CA().Activate(); err != nil {
		t.Fatal(err)
	}
	if _, err := two.CA().Activate(); err != nil {
		t.Fatal(err)
	}
	if err := one.Tell(ctx); err != nil {
		t.Fatal(err)
	}
	if err := two.Tell(ctx); err == nil || fault.KindOf(err) != fault.Retry || !strings.Contains(err.Error(), "undone") {
		t.Fatalf("%v", err)
	}
	a, errA := one.CA().Export()
	b, errB := two.CA().Export()
	if errA != nil || errB != nil || !bytes.Equal(a, b) {
		t.Error("they are apart")
	}
	// The next change goes from either.
	if err := two.CA().Retire(two.CA().Authorities()[0].ID); err != nil {
		t.Fatal(err)
	}
	if err := two.Tell(ctx); err != nil {
		t.Fatal(err)
	}
	if err := one.step(ctx, nothing); err != nil || !same() {
		t.Errorf("%v", err)
	}

	// A database that was restored from a backup isn't followed.
	r.has.Version = 1
	if err := one.step(ctx, nothing); err == nil || fault.HintOf(err) == "" {
		t.Errorf("%v", err)
	}
}

// TestFollow: a word from the database, or half a minute, and the other's change is here.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &records{}
		one, two := joined(t, r), joined(t, r)
		ctx, cancel := context.WithCancel(t.Context())
		changes := 0
		done := make(chan struct{})
		go func() {
			defer close(done)
			two.Follow(ctx, func(context.Context) error { changes++; return nil })
		}()
		synctest.Wait()
		if _, err := one.CA().Prepare(); err != nil {
			t.Error(err)
		}
		if err := one.Tell(ctx); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if changes != 1 {
			t.Errorf("%d changes", changes)
		}
		r.told = nil // the word gets lost
		if _, err := one.CA().Activate(); err != nil {
			t.Error(err)
		}
		if err := one.Tell(ctx); err != nil {
			t.Error(err)
		}
		time.Sleep(lookAgain)
		synctest.Wait()
		if changes != 2 {
			t.Errorf("%d changes", changes)
		}
		cancel()
		<-done
	})
}

// TestAlone: without a secret nothing is shared, and the directory that belongs to the database is needed.
func TestAlone(t *testing.T) {
	r := &records{}
	one, err := join(t, r, secret.Text{})
	if err != nil || r.has.Sealed != nil || r.has.Origin != one.CA().Origin() {
		t.Fatalf("%+v, %v", r.has, err)
	}
	if err := one.Tell(t.Context()); err != nil {
		t.Error(err)
	}
	one.Follow(t.Context(), nil)
	if _, err := join(t, r, secret.Text{}); err == nil || !strings.Contains(fault.HintOf(err), "backup") {
		t.Errorf("%v", err)
	}
}
