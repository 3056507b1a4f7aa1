package db

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/powernode/powernode-agent/internal/fault"
)

// TestTurns: one at a time of each owner, and what nobody wants is forgotten.
func TestTurns(t *testing.T) {
	var all turns
	ctx := t.Context()
	leave := first(all.take(ctx, "a", time.Hour))
	first(all.take(ctx, "b", time.Hour))()
	first(all.take(ctx, "", 0))()
	if _, err := all.take(ctx, "a", time.Millisecond); fault.KindOf(err) != fault.Retry || fault.HintOf(err) == "" {
		t.Errorf("waited too long: %v", err)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := all.take(gone, "a", time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("went away: %v", err)
	}
	under, most := 0, 0
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			leave, err := all.take(ctx, "a", time.Hour)
			if err != nil {
				t.Error(err)
				return
			}
			// The turn itself keeps these from races.
			under++
			most = max(most, under)
			under--
			leave()
		})
	}
	leave()
	wait.Wait()
	if most != 1 || len(all.of) != 0 {
		t.Errorf("%d at once, %d left", most, len(all.of))
	}
}

// TestOneOwnersMany: many transactions of one owner that wait for each other leave connections for all others.
func TestOneOwnersMany(t *testing.T) {
	overPostgres(t)
	d, _ := newDB(t)
	ctx := t.Context()
	held, release := make(chan struct{}), make(chan struct{})
	var wait sync.WaitGroup
	of := func(fn func(tx *txn) error) {
		wait.Go(func() {
			if err := d.updateOf(ctx, "one", fn); err != nil {
				t.Error(err)
			}
		})
	}
	of(func(*txn) error {
		close(held)
		<-release
		return nil
	})
	<-held
	for range 3 * connections {
		of(func(*txn) error { return nil })
	}
	for tries := 0; ; tries++ {
		all := &d.write.dialect.(*postgresDialect).turns
		all.mu.Lock()
		n := all.of["one"].wanted
		all.mu.Unlock()
		if n == 1+3*connections {
			break
		}
		if tries > 10_000 {
			t.Fatalf("%d", n)
		}
		time.Sleep(time.Millisecond)
	}
	if n := d.write.pool.Stats().InUse; n != 1 {
		t.Errorf("they hold %d connections", n)
	}
	check(t, d.updateOf(ctx, "other", func(*txn) error { return nil }))
	close(release)
	wait.Wait()
}
